"""The drafter of a head that goes on from token and state: what `eagle` and `mtp` are, but for their options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paceline.drafters._draft_model import Shape
from paceline.drafters._heads.adopted import HeadDrafter, target_ids, within
from paceline.drafters._heads.chains import SPARE, Asked, Chains
from paceline.drafters._heads.followed import Followed
from paceline.drafters._heads.pages import HostPages
from paceline.engine.request import DraftLimits, Environment, Request
from paceline.engine.tree import EMPTY, DraftTree


class ChainedDrafter(HeadDrafter):
    """Subclasses are dataclasses with the options `depth`, `width` and `branch` besides."""

    depth: int
    width: int
    branch: int
    _chains: Chains | None = None
    _pages: HostPages | None = None

    def attach(self, environment: Environment) -> None:
        """See `Drafter`; raises as `HeadDrafter` does."""
        head = self._adopt(environment).module
        self._run(head, environment)

    def _run(self, head: Any, environment: Environment) -> None:
        """Take a head that is bound to the target."""
        from paceline.heads.running import ChainedInTarget

        self._pages, self._followed = HostPages(environment.host), dict[int, Followed]()
        runner = ChainedInTarget(head, environment.host)
        self._chains = Chains(runner, target_ids(head), environment.vocab_size, Shape(self.width, self.branch))

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        if self._pages is not None:
            self._followed.pop(request.id, None)
            self._pages.forget(request)

    def close(self) -> None:
        """See `Drafter`."""
        if self._chains is not None:
            self._chains.runner.leave()
        self._chains = self._pages = None

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """See `Drafter`: empty where the context or the cache has no room for a draft's rows."""
        if self._chains is None or self._pages is None:
            raise self._refuse_detached()
        trees = [EMPTY] * len(requests)
        found = {i: one for i, request in enumerate(requests) if (one := self._follow(request, self._pages))}
        fits = list(found)[: self._chains.runner.max_rows]
        if fits:
            asked = [Asked(requests[i], found[i], within(limits[i], self.depth)) for i in fits]
            for i, tree in zip(fits, self._grown(self._chains, asked), strict=True):
                trees[i] = tree
        return trees

    def _grown(self, chains: Chains, asked: Sequence[Asked]) -> list[DraftTree]:
        return chains.grow(asked, self.name)

    def _follow(self, request: Request, pages: HostPages) -> Followed | None:
        """What was read of a request, if there is room for a draft's rows behind what is committed."""
        sequence = pages.of(request)
        if not sequence or not sequence.length or not pages.make_room(sequence, sequence.length + SPARE):
            return None
        followed = self._followed.setdefault(request.id, Followed(sequence))
        followed.follow(sequence)
        return followed
