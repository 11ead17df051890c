"""Counters of speculative decoding and what follows from them. Names are vLLM's; docs/metrics.md defines them.

Knows nothing of how decoding works. An accepted draft token never includes the correction or bonus token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class DrafterStats:
    """What one drafter did for one request."""

    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    num_proposals: int = 0  # steps in which it was asked
    seconds: float = 0.0
    earned_seconds: float = 0.0  # plain steps that its accepted drafts saved, less what its rows cost
    num_failures: int = 0

    @property
    def saved_seconds(self) -> float:
        """What it earned, less its own time: the seconds by which it made decoding shorter, or longer if negative."""
        return self.earned_seconds - self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"saved_seconds": self.saved_seconds}


@dataclass
class Stats:
    """What decoding one request took: `output.stats`.

    Seconds are wall-clock; a step shared by a batch counts in full for each.
    """

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0  # of the prompt, found in the prefix cache instead of being read
    num_preemptions: int = 0  # times that it gave up its cache to others, and was read again
    num_emitted_tokens: int = 0
    num_steps: int = 0
    num_spec_steps: int = 0  # those with drafts
    num_draft_tokens: int = 0
    num_evaluated_drafts: int = 0  # places where drafts were tested: a draft behind a rejection never is
    num_accepted_draft_tokens: int = 0
    acceptance_histogram: list[int] = field(default_factory=list)  # steps with so many accepted drafts, from 0 on
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    forward_seconds: float = 0.0  # the part of decode_seconds spent in the target's forward
    drafters: dict[str, DrafterStats] = field(default_factory=dict)
    pacing: dict[str, Any] = field(default_factory=dict)  # the pacer's own account, set when the request ends
    numerics: dict[str, Any] = field(default_factory=dict)  # what the bits depend on: kernels, threads, dtype, device
    memory: dict[str, int] = field(default_factory=dict)  # bytes: of the weights, of the cache, of the process so far

    @property
    def mean_acceptance_length(self) -> float:
        """Emitted tokens per step: 1 is plain decoding."""
        return self.num_emitted_tokens / self.num_steps if self.num_steps else 0.0

    @property
    def draft_acceptance_rate(self) -> float:
        """Accepted draft tokens over proposed ones."""
        return self.num_accepted_draft_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted draft tokens over evaluated ones: the α of Leviathan et al. 2023 (arXiv 2211.17192)."""
        return self.num_accepted_draft_tokens / self.num_evaluated_drafts if self.num_evaluated_drafts else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Emitted tokens per second of decoding, prefill left out."""
        return self.num_emitted_tokens / self.decode_seconds if self.decode_seconds else 0.0

    def drafter(self, name: str) -> DrafterStats:
        """The counters of one drafter."""
        return self.drafters.setdefault(name, DrafterStats())

    def observe(self, proposed: list[str], accepted: list[str], num_emitted: int, num_evaluated: int) -> None:
        """Count one step: who proposed its draft tokens and the accepted ones; tokens emitted, drafts evaluated."""
        self.num_steps += 1
        self.num_spec_steps += bool(proposed)
        self.num_evaluated_drafts += num_evaluated
        self.num_emitted_tokens += num_emitted
        self.num_draft_tokens += len(proposed)
        self.num_accepted_draft_tokens += len(accepted)
        self.acceptance_histogram += [0] * (len(accepted) + 1 - len(self.acceptance_histogram))
        self.acceptance_histogram[len(accepted)] += 1
        for name in proposed:
            self.drafter(name).num_draft_tokens += 1
        for name in accepted:
            self.drafter(name).num_accepted_draft_tokens += 1

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        derived = {name: getattr(self, name) for name in _DERIVED}
        return asdict(self) | derived | {"drafters": {name: d.as_dict() for name, d in self.drafters.items()}}


_DERIVED = ("mean_acceptance_length", "draft_acceptance_rate", "acceptance_rate", "tokens_per_second")
