"""What a request's steps were, kept for whoever asks later: the report, above all.

References and numbers only, no logits: a step costs a few hundred bytes. Knows nothing of requests or models.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.engine.tree import DraftTree


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of one request. Seconds are wall-clock; a step shared by a batch counts in full for each."""

    tree: DraftTree
    path: tuple[int, ...]  # accepted nodes, from the root down
    num_emitted: int  # tokens, the correction or bonus token among them
    draft_seconds: float
    forward_seconds: float
    commit_seconds: float  # choosing, committing and learning

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self.draft_seconds + self.forward_seconds + self.commit_seconds
