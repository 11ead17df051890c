"""Drafts with a block head: one forward reads the target's own hidden states and says all that is to follow.

The head's keys and values of the text come about in the target's own forward and lie in its pages (model/hosting.py).
So a proposal costs a forward of a few rows, and a tree over its slots costs none (_block/growing.py). DFlash
(arXiv 2602.06036) with the transition of DSpark (arXiv 2607.05147); the shared noise and the tree are ours.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from paceline.bundled import is_bundled
from paceline.drafters._heads.pages import HostPages
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import EMPTY, DraftTree
from paceline.errors import ConfigError, DrafterError

if TYPE_CHECKING:
    from paceline.drafters._block.observing import BlockPupil, Observer
    from paceline.drafters._block.trees import Trees
    from paceline.heads.block import BlockHead
    from paceline.heads.block_guest import BlockGuest
    from paceline.heads.weights import Weights


@register("block")
@dataclass(eq=False)
class BlockDrafter(BaseDrafter):
    """Asks a head of the target for a whole block."""

    path: str | BlockHead = option(  # noqa: RUF009  it makes a field
        "", help="the head: a folder or, in Python, a BlockHead, which becomes the drafter's own; none: the one known"
    )
    probe: bool = option(True, help="try what lies in a folder on the target first; false: read it as it says")
    learn: bool = option(True, help="learn from what the target says, for each tenant by itself (docs/learning.md)")
    reads_hidden_states: ClassVar[bool] = True
    prior_tokens: ClassVar[float] = 2.0  # a head was trained on its target
    _name: str = field(default="", init=False, repr=False)
    _pages: HostPages | None = field(default=None, init=False, repr=False)
    _guest: BlockGuest | None = field(default=None, init=False, repr=False)
    _weights: Weights | None = field(default=None, init=False, repr=False)
    _trees: Trees | None = field(default=None, init=False, repr=False)
    _pupil: BlockPupil | None = field(default=None, init=False, repr=False)
    _observer: Observer | None = field(default=None, init=False, repr=False)

    @property
    def identity(self) -> str:
        """See `BaseDrafter`."""
        return f"{type(self).name}({self._name})"

    def attach(self, environment: Environment) -> None:
        """Read the head, and have the target keep its context from now on.

        Raises:
            ModelError: it cannot be read, or does not go with the target.
            ConfigError: no head is given or known, or the target cannot host one.
        """
        from paceline.drafters._block.observing import BlockPupil, Observer
        from paceline.drafters._block.trees import trees_of
        from paceline.heads.block_guest import BlockGuest
        from paceline.heads.weights import Weights

        if environment.host is None:
            raise ConfigError("block: this target hosts no heads; allowed: a transformers model that Paceline loaded")
        head, self._name = self._found(environment)
        self._pages = HostPages(environment.host)
        self._weights = None if head.markov_head is None else Weights.of(head.markov_head)
        self._guest = BlockGuest(head, environment.host)
        self._trees = trees_of(self._guest, head)
        if self.learn and self._weights is not None:
            self._pupil = BlockPupil(self._weights, head.config.num_proposals)
            self._observer = Observer(self._pupil, self._trees.d2t)

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        if self._observer is not None:
            self._observer.start(request)
        return True

    def _found(self, environment: Environment) -> tuple[BlockHead, str]:
        """The head, and what it is called. A bundled one needs no trial."""
        from paceline.heads.adopting import adopt
        from paceline.heads.block import BlockHead
        from paceline.heads.prompting import prompts_for

        source: Any = environment.head if self.path is None or self.path == "" else self.path
        if isinstance(source, BlockHead):
            return source, "given"
        if not isinstance(source, (str, os.PathLike)):
            raise ConfigError(f"block: path is {source!r}; allowed: the folder of a head, or a BlockHead")
        is_probed, prompts = self.probe and not is_bundled(source), prompts_for(environment.tokenizer)
        found = adopt(os.path.expanduser(source), "block", environment.host, prompts, is_probed)
        return found.module, found.digest

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """One tree per request, empty where the context or the cache has no room for a block."""
        if self._guest is None or self._trees is None or self._pages is None:
            raise DrafterError("the block drafter is not attached to an engine, or was closed")
        if self._observer is not None:
            self._observer.begin_step()
        trees = [EMPTY] * len(requests)
        sequences = {i: sequence for i, request in enumerate(requests) if (sequence := self._pages.of(request))}
        fits = [i for i, sequence in sequences.items() if self._guest.has_room(sequence)]
        for weights, alike in self._by_weights(requests, fits):
            for start in range(0, len(alike), self._guest.max_blocks):
                part = alike[start : start + self._guest.max_blocks]
                asked = [(requests[i], sequences[i], limits[i]) for i in part]
                for i, tree in zip(part, self._trees.grow(asked, weights, self.name), strict=True):
                    trees[i] = tree
                self._note([requests[i] for i in part])
        return trees

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`."""
        if self._observer is not None:
            self._observer.observe(outcome)

    def rest(self) -> bool:
        """See `BaseDrafter`."""
        return self._observer is not None and self._observer.learning.rest()

    def learnt(self) -> Mapping[str, int]:
        """See `BaseDrafter`."""
        return {} if self._observer is None else self._observer.learning.counts

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        if self._observer is not None:
            self._observer.finish(request)
        if self._pages is not None:
            self._pages.forget(request)

    def _by_weights(self, requests: Sequence[Request], fits: Sequence[int]) -> list[tuple[Weights | None, list[int]]]:
        """Which of the requests draft with which weights: what was learnt from a tenant drafts for it alone."""
        if self._pupil is None:
            return [(self._weights, list(fits))]
        found: dict[int, tuple[Weights | None, list[int]]] = {}
        for i in fits:
            weights = self._pupil.weights(requests[i].hints.tenant)
            found.setdefault(id(weights), (weights, []))[1].append(i)
        return list(found.values())

    def _note(self, requests: Sequence[Request]) -> None:
        """Have what the head has just said of requests learnt from, as far as that is of use."""
        if self._observer is not None and self._trees is not None:
            for place, request in enumerate(requests):
                if self._observer.wants(request):
                    self._observer.drafted(request, self._trees.said(place))

    def close(self) -> None:
        """See `Drafter`."""
        if self._guest is not None:
            self._guest.leave()
        if self._observer is not None:
            self._observer.learning.close()
        self._pages = self._guest = self._trees = self._pupil = self._observer = None
