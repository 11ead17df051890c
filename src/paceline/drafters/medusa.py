"""Drafts with Medusa's heads (arXiv 2401.10774): one forward of one row says several tokens, each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._block.growing import Growth
from paceline.drafters._heads.adopted import HeadDrafter, target_ids, within
from paceline.drafters._heads.pages import HostPages
from paceline.drafters.base import option, register
from paceline.engine.request import DraftLimits, Environment, Request
from paceline.engine.tree import EMPTY, DraftTree

if TYPE_CHECKING:
    from paceline.heads.running import MedusaInTarget


@register("medusa")
@dataclass(eq=False)
class MedusaDrafter(HeadDrafter):
    """Asks Medusa's heads in a folder; the tree is the best of the products of what they say."""

    path: str = option("", help="the folder of the heads: config.json and safetensors")
    depth: int = option(16, ge=1, le=16, help="heads that are asked, at most")
    probe: bool = option(True, help="try the heads on the target first; false: read them as the configuration says")
    kind: ClassVar[str] = "medusa"
    _runner: MedusaInTarget | None = None
    _pages: HostPages | None = None

    def attach(self, environment: Environment) -> None:
        """See `Drafter`; raises as `HeadDrafter` does."""
        self._run(self._adopt(environment).module, environment)

    def _run(self, head: Any, environment: Environment) -> None:
        """Take heads that are bound to the target."""
        from paceline.heads.running import MedusaInTarget

        self._pages, self._ids, self._vocab_size = HostPages(environment.host), target_ids(head), environment.vocab_size
        self._runner = MedusaInTarget(head, environment.host)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        if self._pages is not None:
            self._pages.forget(request)

    def close(self) -> None:
        """See `Drafter`."""
        if self._runner is not None:
            self._runner.leave()
        self._runner = self._pages = None

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """See `Drafter`."""
        if self._runner is None or self._pages is None:
            raise self._refuse_detached()
        trees = [EMPTY] * len(requests)
        found = {i: pages for i, request in enumerate(requests) if (pages := self._pages.of(request)) and pages.length}
        fits = list(found)[: self._runner.max_rows]
        if fits:
            for i, said in zip(fits, self._runner.run([found[i] for i in fits]), strict=True):
                trees[i] = self._tree(said, requests[i], limits[i])
        return trees

    def _tree(self, said: NDArray[np.float32], request: Request, limits: DraftLimits) -> DraftTree:
        known = said[: self.depth] if self._ids is not None else said[: self.depth, : self._vocab_size]
        return Growth(known, None, self._ids).tree(request, within(limits, self.depth), self.name)
