"""Counters beside vLLM's own. The engine's process writes them; its API server shows them in `/metrics`.

Both are told the same folder by `PROMETHEUS_MULTIPROC_DIR`, from which prometheus-client adds up what processes count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from paceline.engine.request import Request, StepOutcome

_LABELS = ("model_name", "engine")  # vLLM's
# By what is counted: the help, and the label besides the model's, if any.
COUNTERS: Mapping[str, tuple[str, str | None]] = {
    "drafter_draft_tokens": ("Draft tokens verified, by drafter.", "drafter"),
    "drafter_accepted_tokens": ("Draft tokens that vLLM accepted, by drafter.", "drafter"),
    "drafter_proposals": ("Times a drafter was asked, of ended requests.", "drafter"),
    "drafter_seconds": ("A drafter's own time, of ended requests.", "drafter"),
    "drafter_failures": ("Times a drafter failed and was left out, of ended requests.", "drafter"),
    "pacer_stops": ("Why drafting went no further, in steps of ended requests.", "reason"),
    "drafting_seconds": ("Seconds that Paceline took between vLLM's steps.", None),
    "failures": ("Times that Paceline failed as a whole, and drafted no more.", None),
}


@cache
def _collectors() -> dict[str, Any]:
    """One for each counter in a process, however many engines it has."""
    from prometheus_client import Counter as Collector

    labels = {what: () if label is None else (label,) for what, (_, label) in COUNTERS.items()}
    return {what: Collector(f"paceline:{what}", COUNTERS[what][0], (*_LABELS, *labels[what])) for what in COUNTERS}


class Metrics:
    """Counts what happens in one engine.

    Args:
        model_name: under which vLLM serves it.
        engine: vLLM's index of the engine.
        is_counting: whether this process counts; of several that draft the same, one does.
    """

    def __init__(self, model_name: str, engine: int = 0, is_counting: bool = True) -> None:
        self._of = (model_name, str(engine))
        self._is_counting = is_counting
        self._shown: dict[tuple[str, ...], Any] = {}
        if is_counting:
            for what in ("drafting_seconds", "failures"):
                self._add(what, 0)

    @classmethod
    def of(cls, config: Any) -> Metrics:
        """Those of an engine, by vLLM's configuration in the process that drafts."""
        parallel = config.parallel_config
        is_first = parallel.rank % parallel.tensor_parallel_size == 0  # of those that hold parts of the same layers
        return cls(config.model_config.served_model_name, parallel.data_parallel_index, is_first)

    def observed(self, outcomes: Sequence[StepOutcome], seconds: float) -> None:
        """Count a step: what its drafts came to, and the seconds spent on it between vLLM's steps."""
        drafted: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        for outcome in outcomes:
            sources = outcome.tree.sources
            drafted.update(sources)
            accepted.update(sources[node] for node in outcome.path[: outcome.num_accepted_drafts])
        for name, count in drafted.items():
            self._add("drafter_draft_tokens", count, name)
            self._add("drafter_accepted_tokens", accepted[name], name)
        self._add("drafting_seconds", seconds)

    def finished(self, request: Request) -> None:
        """Count what a request's drafters did, and why drafting stopped; after the pacer has finished it."""
        for name, done in request.stats.drafters.items():
            self._add("drafter_proposals", done.num_proposals, name)
            self._add("drafter_seconds", done.seconds, name)
            self._add("drafter_failures", done.num_failures, name)
        for reason, steps in request.stats.pacing.get("stops", {}).items():
            self._add("pacer_stops", steps, reason)

    def failed(self) -> None:
        """Count that nothing will be drafted any more."""
        self._add("failures", 1)

    def _add(self, what: str, amount: float, *labels: str) -> None:
        if not self._is_counting:
            return
        key = (what, *labels)
        shown = self._shown.get(key)
        if shown is None:
            shown = self._shown[key] = _collectors()[what].labels(*self._of, *labels)
        shown.inc(amount)
