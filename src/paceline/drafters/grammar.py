"""Drafts what a grammar leaves no choice about: the names, brackets and quotes that a schema or expression forces.

The constraint itself is the sampler's (sampling/sampler.py); here its forced tokens are proposed, so that they come
at the cost of rows instead of steps. A forced text may be spelled in other tokens too, so even this is an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paceline.drafters.base import BaseDrafter, register
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import EMPTY, DraftTree, TreeBuilder

_FORCED = 0.9  # the chance that forced text is spelled as the tokenizer would
_LAST_SIGN = 7


@register("grammar")
@dataclass(eq=False)
class GrammarDrafter(BaseDrafter):
    """Proposes what a JSON schema, an expression or a choice forces."""

    reads_sampler: ClassVar[bool] = True

    def start(self, request: Request) -> bool:
        """See `Drafter`: only for structured output."""
        return request.sampler.grammar is not None

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """A chain of the forced tokens, if any."""
        grammar = request.sampler.grammar
        if grammar is None:  # complete
            return EMPTY
        builder = TreeBuilder(self.name)
        parent = -1
        for depth, token in enumerate(grammar.forced()[: min(limits.max_nodes, limits.max_depth)]):
            parent = builder.add(parent, token, _FORCED, min(depth, _LAST_SIGN))
        return builder.build()
