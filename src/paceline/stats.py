"""Counters of speculative decoding and what follows from them. Names are vLLM's; docs/metrics.md defines them.

Knows nothing of how decoding works. An accepted draft token never includes the correction or bonus token.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class DrafterStats:
    """What one drafter did for one request."""

    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    num_proposals: int = 0  # steps in which it was asked
    seconds: float = 0.0
    saved_seconds: float = 0.0  # plain steps that its accepted drafts saved, less what its rows cost
    num_failures: int = 0


@dataclass
class RequestStats:
    """What decoding one request took. Seconds are wall-clock; a step shared by a batch counts in full for each."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0  # of the prompt, found in the prefix cache instead of being read
    num_emitted_tokens: int = 0
    num_steps: int = 0
    num_spec_steps: int = 0  # those with drafts
    num_draft_tokens: int = 0
    num_evaluated_drafts: int = 0  # places where drafts were tested: a draft behind a rejection never is
    num_accepted_draft_tokens: int = 0
    acceptance_histogram: Counter[int] = field(default_factory=Counter)  # accepted drafts in a step -> steps
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    forward_seconds: float = 0.0  # the part of decode_seconds spent in the target's forward
    drafters: dict[str, DrafterStats] = field(default_factory=dict)
    pacing: dict[str, Any] = field(default_factory=dict)  # the pacer's own account, set when the request ends

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
        self.acceptance_histogram[len(accepted)] += 1
        for name in proposed:
            self.drafter(name).num_draft_tokens += 1
        for name in accepted:
            self.drafter(name).num_accepted_draft_tokens += 1

    def as_dict(self) -> dict[str, Any]:
        """The public form, ready for JSON."""
        top = max(self.acceptance_histogram, default=-1)
        return {
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_cached_tokens": self.num_cached_tokens,
            "num_emitted_tokens": self.num_emitted_tokens,
            "num_steps": self.num_steps,
            "num_spec_steps": self.num_spec_steps,
            "num_draft_tokens": self.num_draft_tokens,
            "num_evaluated_drafts": self.num_evaluated_drafts,
            "num_accepted_draft_tokens": self.num_accepted_draft_tokens,
            "mean_acceptance_length": self.mean_acceptance_length,
            "draft_acceptance_rate": self.draft_acceptance_rate,
            "acceptance_rate": self.acceptance_rate,
            "acceptance_histogram": [self.acceptance_histogram[j] for j in range(top + 1)],
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.decode_seconds,
            "forward_seconds": self.forward_seconds,
            "tokens_per_second": self.tokens_per_second,
            "drafters": {
                name: {
                    "num_draft_tokens": d.num_draft_tokens,
                    "num_accepted_draft_tokens": d.num_accepted_draft_tokens,
                    "num_proposals": d.num_proposals,
                    "seconds": d.seconds,
                    "saved_seconds": d.saved_seconds - d.seconds,
                    "num_failures": d.num_failures,
                }
                for name, d in self.drafters.items()
            },
            "pacing": self.pacing,
        }
