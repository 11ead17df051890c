"""P-EAGLE's proposals: rows of masks behind the last true row say every depth in one forward."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.drafters._block.growing import Growth
from paceline.drafters._heads.chains import Asked, Chains
from paceline.engine.tree import DraftTree


def grown_at_once(chains: Chains, asked: Sequence[Asked], mask: int, depth: int, source: str) -> list[DraftTree]:
    """One tree each: the best products of what each depth says on its own."""
    num_masks = min(depth - 1, chains.runner.max_rows // len(asked) - 1)
    said = chains.read(asked, num_masks, mask)
    return [
        Growth(logits, None, chains.ids).tree(one.request, one.limits, source)
        for logits, one in zip(said, asked, strict=True)
    ]
