"""Every metric of `/metrics`: its name, kind, labels and buckets.

Those of `vllm:` are vLLM's to the letter, so that its dashboards work. Its buckets begin where large models are; a
small one falls into the first of them, so finer ones stand beside them under `paceline:`. Counters are named here
without the `_total` that the exposition adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from paceline.learning import EVENTS

FINISHED_REASONS = ("stop", "length", "abort", "error")
DEADLINE_OUTCOMES = ("met", "cut", "refused", "given_up")
STAGES = ("prefill", "draft", "forward", "commit", "learn")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Besides its `labels` it has those of the model, unless it is about HTTP alone."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] = ()  # values of its one label that are shown from the start
    bounds: tuple[float, ...] = ()  # of a histogram's buckets, each included

    @property
    def is_of_model(self) -> bool:
        """Whether it has the labels of the model."""
        return ":" in self.name


def one_two_five(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, … up to `most`."""
    return tuple(_until(most))


def _until(most: int) -> Iterator[float]:
    for exponent in count():
        for mantissa in (1, 2, 5):
            if mantissa * 10**exponent > most:
                return
            yield float(mantissa * 10**exponent)


_FIRST = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_FINE = (
    *(0.0002, 0.0003, 0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05),
    *(0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 2, 5, 10, 30),
)
_HTTP = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_VLLM = (
    Metric("vllm:num_requests_running", "gauge", "Requests that hold cache: being read or decoded."),
    Metric("vllm:num_requests_waiting", "gauge", "Requests that wait for cache."),
    Metric(
        *("vllm:num_requests_waiting_by_reason", "gauge", "Waiting requests by reason; none is ever deferred here."),
        *(("reason",), ("capacity", "deferred")),
    ),
    Metric("vllm:kv_cache_usage_perc", "gauge", "Share of the cache that requests hold, from 0 to 1."),
    Metric("vllm:prefix_cache_queries", "counter", "Prompt tokens that were looked for in the prefix cache."),
    Metric("vllm:prefix_cache_hits", "counter", "Those of them that were found."),
    Metric("vllm:prompt_tokens", "counter", "Prompt tokens of requests that were admitted."),
    Metric("vllm:prompt_tokens_cached", "counter", "Those of them that the prefix cache had."),
    Metric("vllm:generation_tokens", "counter", "Tokens emitted."),
    Metric("vllm:num_preemptions", "counter", "Times that a request gave up its cache to others."),
    Metric(
        *("vllm:request_success", "counter", "Requests that ended, by how.", ("finished_reason",), FINISHED_REASONS)
    ),
    Metric("vllm:time_to_first_token_seconds", "histogram", "From arrival to the first token.", bounds=_FIRST),
    Metric("vllm:inter_token_latency_seconds", "histogram", "Between two steps with tokens.", bounds=_TOKEN),
    Metric(
        "vllm:request_time_per_output_token_seconds", "histogram", "Mean of a request behind its first.", bounds=_TOKEN
    ),
    Metric("vllm:e2e_request_latency_seconds", "histogram", "From arrival to the last token.", bounds=_REQUEST),
    Metric("vllm:request_queue_time_seconds", "histogram", "From arrival to admission.", bounds=_REQUEST),
    Metric("vllm:request_prefill_time_seconds", "histogram", "From admission to the first token.", bounds=_REQUEST),
    Metric("vllm:request_decode_time_seconds", "histogram", "From the first token to the last.", bounds=_REQUEST),
    Metric("vllm:request_inference_time_seconds", "histogram", "From admission to the last token.", bounds=_REQUEST),
    Metric(
        *("vllm:iteration_tokens_total", "histogram", "Tokens of a step: emitted, and of prompts read before it."),
        bounds=(1, *(8.0 * 2**i for i in range(12))),
    ),
    Metric("vllm:request_params_n", "histogram", "Samples asked for.", bounds=(1, 2, 5, 10, 20)),
    Metric("vllm:request_num_preemptions", "histogram", "Preemptions of a request.", bounds=(1, 2, 3, 4, 5, 10, 20)),
    Metric("vllm:spec_decode_num_drafts", "counter", "Steps of requests with draft tokens."),
    Metric("vllm:spec_decode_num_draft_tokens", "counter", "Draft tokens that were verified: nodes of trees."),
    Metric("vllm:spec_decode_num_accepted_tokens", "counter", "Those of them that were emitted."),
    Metric(
        *(
            "vllm:spec_decode_num_accepted_tokens_per_pos",
            "counter",
            "Accepted draft tokens by depth in the tree, from 0.",
        ),
        *(("position",), ("0",)),
    ),
    Metric(
        *("vllm:cache_config_info", "gauge", "The cache: 1, its settings are labels."),
        ("block_size", "num_gpu_blocks", "enable_prefix_caching"),
    ),
)
_OF_LENGTH = (
    ("vllm:request_prompt_tokens", "Tokens of a request's prompt."),
    ("vllm:request_generation_tokens", "Tokens that a request was given."),
    ("vllm:request_max_num_generation_tokens", "Tokens of the longest sample of an HTTP request."),
    ("vllm:request_params_max_tokens", "Most tokens that a request may be given."),
    ("vllm:request_prefill_kv_computed_tokens", "Prompt tokens of a request that the prefix cache did not have."),
)
_OWN = (
    Metric("paceline:time_to_first_token_seconds", "histogram", "vLLM's, in finer buckets.", bounds=_FINE),
    Metric("paceline:step_gap_seconds", "histogram", "vLLM's inter-token latency, in finer buckets.", bounds=_FINE),
    Metric(
        *(
            "paceline:inter_token_latency_seconds",
            "histogram",
            "The same for each token: a gap before k tokens is k k-ths.",
        ),
        bounds=_FINE,
    ),
    Metric(
        *("paceline:tokens_per_step", "histogram", "Tokens of a request in a step; 1 is plain decoding."),
        bounds=(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64),
    ),
    Metric("paceline:engine_steps", "counter", "Steps in which something was decoded."),
    Metric("paceline:engine_busy_seconds", "counter", "Seconds that the engine read prompts and took steps."),
    Metric("paceline:engine_stage_seconds", "counter", "The same by stage.", ("stage",), STAGES),
    Metric("paceline:drafter_draft_tokens", "counter", "Draft tokens verified, by drafter.", ("drafter",)),
    Metric("paceline:drafter_accepted_tokens", "counter", "Draft tokens emitted, by drafter.", ("drafter",)),
    Metric("paceline:drafter_proposals", "counter", "Times a drafter was asked, of ended requests.", ("drafter",)),
    Metric("paceline:drafter_seconds", "counter", "A drafter's own time, of ended requests.", ("drafter",)),
    Metric("paceline:drafter_failures", "counter", "Times a drafter failed, of ended requests.", ("drafter",)),
    Metric(
        *(
            "paceline:head_learning",
            "gauge",
            "What became of heads that learn, for the tenants learnt from now.",
            ("event",),
        ),
        EVENTS,
    ),
    Metric("paceline:pacer_stops", "counter", "Why drafting went no further, in steps of ended requests.", ("reason",)),
    Metric("paceline:deadline_requests", "counter", "Requests with a deadline.", ("outcome",), DEADLINE_OUTCOMES),
    Metric("paceline:ignored_fields", "counter", "Unknown fields of requests, which were ignored."),
    Metric("paceline:refused_requests", "counter", "Requests that were refused because too much was open."),
    Metric("paceline:open_requests", "gauge", "Samples that run or wait, by the server's own count."),
    Metric("paceline:open_prompt_tokens", "gauge", "Tokens of their prompts."),
    Metric("paceline:open_responses", "gauge", "HTTP requests that are being answered, this one among them."),
    Metric("paceline:cache_tokens", "gauge", "Tokens that the cache can hold."),
    Metric("paceline:memory_bytes", "gauge", "Bytes: of weights, of the cache when full.", ("part",)),
    Metric("paceline:process_resident_memory_bytes", "gauge", "Bytes of memory that the process holds."),
)
_OF_HTTP = (
    Metric(
        "http_requests",
        "counter",
        "Responses; 499 is a client that went before its end.",
        ("handler", "method", "status"),
    ),
    Metric(
        "http_request_duration_seconds", "histogram", "To the end of the response.", ("handler", "method"), bounds=_HTTP
    ),
)


def catalogue(max_model_len: int) -> Sequence[Metric]:
    """All metrics of a server whose requests have at most so many tokens."""
    lengths = one_two_five(max_model_len)
    of_length = [Metric(name, "histogram", text, bounds=lengths) for name, text in _OF_LENGTH]
    return (*_VLLM, *of_length, *_OWN, *_OF_HTTP)
