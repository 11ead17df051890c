"""A drafter in a package of its own: the text goes on as it did some tokens ago."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.drafters import BaseDrafter, option
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder


@dataclass(eq=False)
class ExampleDrafter(BaseDrafter):
    """Repeats the last few tokens."""

    period: int = option(8, ge=1, le=64, help="tokens that are repeated")

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """A chain of the last tokens, once more."""
        builder, node = TreeBuilder(self.name), -1
        for depth, token in enumerate(request.tokens[-self.period :][: min(limits.max_nodes, limits.max_depth)]):
            node = builder.add(node, token, score=0.2, bucket=depth)
        return builder.build()
