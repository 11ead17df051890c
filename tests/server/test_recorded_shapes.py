"""What vLLM's bench and guidellm send is answered as they read it: usage where they look for it, and [DONE]."""

from __future__ import annotations

import json

import httpx
import pytest

from .recorded_shapes import GENERATING, GUIDELLM, VLLM_BENCH, Shape

SHAPES = [shape for shape in (*VLLM_BENCH, *GUIDELLM) if shape.path in GENERATING]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.path} {shape.name}")
def test_a_recorded_request_is_answered(url: str, shape: Shape) -> None:
    assert shape.body is not None
    answer = httpx.request(shape.method, url + shape.path, json=shape.body, headers=dict(shape.headers), timeout=60)
    assert answer.status_code == 200, answer.text
    limit = shape.body.get("max_tokens") or shape.body["max_completion_tokens"]
    if not shape.body.get("stream"):
        assert 0 < answer.json()["usage"]["completion_tokens"] <= limit
        return
    *events, done, _ = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event[:1] != ":"]
    chunks = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert chunks[-1]["choices"] == []
    assert 0 < chunks[-1]["usage"]["completion_tokens"] <= limit
    if shape.body["stream_options"].get("continuous_usage_stats"):
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts)
    if shape.body.get("ignore_eos"):
        assert chunks[-1]["usage"]["completion_tokens"] == limit
