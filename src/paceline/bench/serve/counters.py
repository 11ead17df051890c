"""What a server counts in /metrics: its drafts, as vLLM names them, and Paceline's time in engine steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_DRAFTS = "vllm:spec_decode_num_drafts_total"
_DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
_BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
_BUSY = "paceline:engine_busy_seconds_total"
_PREEMPTIONS = "vllm:num_preemptions_total"
_NAMES = frozenset({_DRAFTS, _DRAFT_TOKENS, _ACCEPTED, _BUSY, _PREEMPTIONS})


@dataclass(frozen=True)
class Counters:
    """Sums over all labels, by name; accepted tokens also by position."""

    totals: dict[str, float] = field(default_factory=dict)
    by_position: dict[int, float] = field(default_factory=dict)

    def since(self, before: Counters) -> Counters:
        """What was counted after `before`."""
        totals = {name: value - before.totals.get(name, 0.0) for name, value in self.totals.items()}
        return Counters(totals, {at: n - before.by_position.get(at, 0.0) for at, n in self.by_position.items()})

    @property
    def busy_seconds(self) -> float | None:
        """Seconds in engine steps; None where the server does not say."""
        return self.totals.get(_BUSY)

    @property
    def num_preemptions(self) -> float | None:
        """Requests that had to give up their pages; None where the server does not say."""
        return self.totals.get(_PREEMPTIONS)

    def speculation(self) -> dict[str, Any]:
        """Acceptance by the keys of `vllm bench serve`; empty where nothing was drafted."""
        drafts, drafted = self.totals.get(_DRAFTS, 0.0), self.totals.get(_DRAFT_TOKENS, 0.0)
        accepted = self.totals.get(_ACCEPTED, 0.0)
        if not drafts or not drafted:
            return {}
        return {
            "spec_decode_acceptance_rate": 100 * accepted / drafted,  # percent
            "spec_decode_acceptance_length": 1 + accepted / drafts,
            "spec_decode_num_drafts": int(drafts),
            "spec_decode_draft_tokens": int(drafted),
            "spec_decode_accepted_tokens": int(accepted),
            "spec_decode_per_position_acceptance_rates": [n / drafts for _, n in sorted(self.by_position.items())],
        }


def read_counters(text: str) -> Counters:
    """The counters of a page of /metrics.

    Raises:
        ValueError: the page is not in Prometheus' format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found = Counters()
    try:
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.name in _NAMES:
                found.totals[sample.name] = found.totals.get(sample.name, 0.0) + sample.value
            elif sample.name == _BY_POSITION:
                at = int(sample.labels["position"])
                found.by_position[at] = found.by_position.get(at, 0.0) + sample.value
    except (ValueError, LookupError) as error:
        raise ValueError(f"no page in the text format of Prometheus: {error}") from error
    return found
