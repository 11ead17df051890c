"""What the engine does, counted in its own thread: a few microseconds a step.

Names, and what vLLM counts when: `catalogue`. Durations of requests are those of requests that ended by themselves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paceline.engine.ports import StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.errors import DeadlineError
from paceline.server.observing.tallies import Tallies


@dataclass(slots=True)
class _Watch:
    """What is remembered of a request while it runs."""

    admitted: float | None = None  # the last time before its first token
    last: float | None = None  # token, seconds
    prefill_seconds: float = 0.0  # counted so far


class EngineMetrics:
    """An `EngineListener` that counts.

    Args:
        tallies: where.
        arrivals: when the HTTP request of a request came, which was before its text was read.
        clock: the engine's.
    """

    def __init__(
        self, tallies: Tallies, arrivals: Mapping[Request, float], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._add = tallies.add
        self._histogram = tallies.histogram
        self._arrivals, self._clock = arrivals, clock
        self._watches: dict[int, _Watch] = {}  # by request id
        self._step_gap = tallies.histogram("vllm:inter_token_latency_seconds")
        self._fine_gap = tallies.histogram("paceline:step_gap_seconds")
        self._token_gap = tallies.histogram("paceline:inter_token_latency_seconds")
        self._tokens_per_step = tallies.histogram("paceline:tokens_per_step")
        self._iteration_tokens = tallies.histogram("vllm:iteration_tokens_total")

    def admitted(self, request: Request) -> None:
        """See `EngineListener`."""
        watch = self._watches.setdefault(request.id, _Watch())
        if watch.last is None:
            watch.admitted = request.times.admitted

    def preempted(self, request: Request) -> None:
        """See `EngineListener`."""
        self._add("vllm:num_preemptions")

    def stepped(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `EngineListener`."""
        num_read = sum([self._count_prompt(outcome.request) for outcome in outcomes if self._is_new(outcome.request)])
        num_emitted = 0
        for outcome in outcomes:
            count = len(outcome.tokens)
            num_emitted += count
            if count:
                self._tokens_per_step.observe(count)
                self._count_gap(outcome.request, count, times.observing)
        self._add("vllm:generation_tokens", num_emitted)
        self._iteration_tokens.observe(num_read + num_emitted)
        self._count_drafts(outcomes)
        self._count_seconds(times)

    def finished(self, request: Request) -> None:
        """See `EngineListener`."""
        if request.times.admitted is not None and self._is_new(request):
            self._count_prompt(request)
        watch = self._watches.pop(request.id, None)
        self._add("vllm:request_success", 1, str(request.finish_reason))
        if request.terms.deadline is not None:
            self._add("paceline:deadline_requests", 1, _deadline_outcome(request))
        for name, drafter in request.stats.drafters.items():
            self._add("paceline:drafter_proposals", drafter.num_proposals, name)
            self._add("paceline:drafter_seconds", drafter.seconds, name)
            self._add("paceline:drafter_failures", drafter.num_failures, name)
        for reason, steps in request.stats.pacing.get("stops", {}).items():
            self._add("paceline:pacer_stops", steps, reason)
        if request.finish_reason in ("stop", "length") and watch is not None:
            self._observe_whole(request, watch)

    def _is_new(self, request: Request) -> bool:
        """Whether its prompt has not been counted."""
        watch = self._watches.get(request.id)
        return watch is None or watch.last is None

    def _count_prompt(self, request: Request) -> int:
        """Count what was read before a first token; how many tokens that were."""
        watch = self._watches.setdefault(request.id, _Watch(request.times.admitted))
        watch.last = request.times.first_token or self._clock()
        stats = request.stats
        for name in ("vllm:prompt_tokens", "vllm:prefix_cache_queries"):
            self._add(name, request.num_input_tokens)
        for name in ("vllm:prompt_tokens_cached", "vllm:prefix_cache_hits"):
            self._add(name, stats.num_cached_tokens)
        self._count_reading(request, watch)
        if request.times.first_token is not None:
            waited = request.times.first_token - self._arrived(request)
            self._histogram("vllm:time_to_first_token_seconds").observe(waited)
            self._histogram("paceline:time_to_first_token_seconds").observe(waited)
        return request.num_input_tokens

    def _count_reading(self, request: Request, watch: _Watch) -> None:
        seconds = request.stats.prefill_seconds - watch.prefill_seconds
        watch.prefill_seconds += seconds
        self._add("paceline:engine_busy_seconds", seconds)
        self._add("paceline:engine_stage_seconds", seconds, "prefill")

    def _arrived(self, request: Request) -> float:
        arrived = self._arrivals.get(request, request.times.arrived)
        assert arrived is not None, "an engine notes when a request comes"
        return arrived

    def _count_gap(self, request: Request, count: int, now: float) -> None:
        """Count the time since the tokens before these; the first ones have none before them."""
        watch = self._watches[request.id]
        if watch.last is not None and request.num_output_tokens > count:
            gap = now - watch.last
            self._step_gap.observe(gap)
            self._fine_gap.observe(gap)
            self._token_gap.observe(gap / count, count)
        watch.last = now

    def _count_drafts(self, outcomes: Sequence[StepOutcome]) -> None:
        drafted = [outcome for outcome in outcomes if outcome.tree.tokens]
        if not drafted:
            return
        depths: Counter[int] = Counter()
        proposed: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        for outcome in drafted:
            proposed.update(outcome.tree.sources)
            path = outcome.path[: outcome.num_accepted_drafts]
            accepted.update([outcome.tree.sources[node] for node in path])
            depths.update(range(len(path)))
        self._add("vllm:spec_decode_num_drafts", len(drafted))
        self._add("vllm:spec_decode_num_draft_tokens", proposed.total())
        self._add("vllm:spec_decode_num_accepted_tokens", accepted.total())
        for depth, times in depths.items():
            self._add("vllm:spec_decode_num_accepted_tokens_per_pos", times, str(depth))
        for name, times in proposed.items():
            self._add("paceline:drafter_draft_tokens", times, name)
            self._add("paceline:drafter_accepted_tokens", accepted[name], name)

    def _count_seconds(self, times: StepTimes) -> None:
        now = self._clock()
        self._add("paceline:engine_steps")
        self._add("paceline:engine_busy_seconds", now - times.drafting)
        self._add("paceline:engine_stage_seconds", times.scoring - times.drafting, "draft")
        self._add("paceline:engine_stage_seconds", times.committing - times.scoring, "forward")
        self._add("paceline:engine_stage_seconds", times.observing - times.committing, "commit")
        self._add("paceline:engine_stage_seconds", now - times.observing, "learn")

    def _observe_whole(self, request: Request, watch: _Watch) -> None:
        """Observe what is known of a request once it has ended."""
        self._count_reading(request, watch)
        counts = {
            "vllm:request_prompt_tokens": request.num_input_tokens,
            "vllm:request_generation_tokens": request.num_output_tokens,
            "vllm:request_params_max_tokens": request.max_tokens,
            "vllm:request_prefill_kv_computed_tokens": request.num_input_tokens - request.stats.num_cached_tokens,
            "vllm:request_num_preemptions": request.stats.num_preemptions,
        }
        for name, value in [*counts.items(), *self._durations(request, watch).items()]:
            self._histogram(name).observe(value)

    def _durations(self, request: Request, watch: _Watch) -> dict[str, float]:
        arrived, first = self._arrived(request), request.times.first_token
        admitted = arrived if watch.admitted is None else watch.admitted
        last = self._clock() if watch.last is None else watch.last
        durations = {
            "vllm:e2e_request_latency_seconds": last - arrived,
            "vllm:request_queue_time_seconds": admitted - arrived,
            "vllm:request_inference_time_seconds": last - admitted,
            "vllm:request_prefill_time_seconds": (last if first is None else first) - admitted,
        }
        if first is not None:
            durations["vllm:request_decode_time_seconds"] = last - first
        if first is not None and request.num_output_tokens > 1:
            mean = (last - first) / (request.num_output_tokens - 1)
            durations["vllm:request_time_per_output_token_seconds"] = mean
        return durations


def _deadline_outcome(request: Request) -> str:
    if isinstance(request.error, DeadlineError):
        return "refused"
    if request.stop_reason == "deadline":
        return "cut"
    return "met" if request.finish_reason in ("stop", "length") else "given_up"
