"""Drafts with an EAGLE head (arXiv 2503.01840): it goes on with the target's own hidden states, token by token.

A node's children are the top-k of `log q + G`, with the noise that the target will add there, as the draft model's are.
P-EAGLE (arXiv 2602.01469) says all depths in one forward, and its tree is the best of their products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from paceline.drafters._heads.chained import ChainedDrafter
from paceline.drafters._heads.chains import Asked, Chains
from paceline.drafters._heads.parallel import grown_at_once
from paceline.drafters.base import option, register
from paceline.engine.request import Environment
from paceline.engine.tree import DraftTree


@register("eagle")
@dataclass(eq=False)
class EagleDrafter(ChainedDrafter):
    """Asks an EAGLE head in a folder: EAGLE-1, -2, -3, -3.1, HASS or P-EAGLE."""

    path: str = option("", help="the folder of the head: config.json and safetensors")
    depth: int = option(6, ge=1, le=32, help="longest draft")
    width: int = option(2, ge=1, le=8, help="nodes extended at each depth")
    branch: int = option(2, ge=1, le=8, help="children proposed for each extended node")
    probe: bool = option(True, help="try the head on the target first; false: read it as its configuration says")
    kind: ClassVar[str] = "eagle"

    def _run(self, head: Any, environment: Environment) -> None:
        super()._run(head, environment)
        self._mask = head.config.mask_token_id

    def _grown(self, chains: Chains, asked: Sequence[Asked]) -> list[DraftTree]:
        if self._mask < 0:
            return super()._grown(chains, asked)
        return grown_at_once(chains, asked, self._mask, self.depth, self.name)
