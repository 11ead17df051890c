"""Trees grown in one native call: Python hands over what each request is, and takes what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._draft_model.fed import Asked, Shape, bucket_of
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree
from paceline.errors import DrafterError
from paceline.native.layout import PAGE, Draft

if TYPE_CHECKING:
    from paceline.model.decoder import Decoder
    from paceline.model.pool import CachedSequence
    from paceline.native.drafting import Drafting


class FedDraft:
    """See `Fed`: what the native code knows of a request."""

    def __init__(self, request: Request, sequence: CachedSequence) -> None:
        self.sequence = sequence
        self.draft = draft_of(request, sequence)

    def nodes(self) -> tuple[Sequence[int], Sequence[int]]:
        """See `Fed`."""
        count = self.draft.num_fed
        return self.draft.fed_tokens[:count], self.draft.fed_parents[:count]

    def clear(self) -> None:
        """See `Fed`."""
        self.draft.num_fed = 0

    def set(self, request: Request, missing: Sequence[int], limits: DraftLimits) -> None:
        """Describe what is wanted, behind tokens that are to be read first."""
        draft, count, length = self.draft, len(missing), self.sequence.length
        if len(self.sequence.pages) * PAGE < length + count + PAGE:
            raise DrafterError(f"the draft model's cache has no room behind {length + count} tokens")
        draft.pages = self.sequence.pages.ctypes.data  # they move when there are more
        draft.length, draft.position, draft.num_fed = length, len(request.tokens), count
        draft.max_nodes, draft.max_depth = min(limits.max_nodes, PAGE), limits.max_depth
        draft.min_gain = limits.min_gain
        draft.fed_tokens[:count], draft.fed_parents[:count] = missing, range(-1, count - 1)

    def tree(self, source: str) -> DraftTree:
        """What came of it."""
        return tree_of(self.draft, source)


def draft_of(request: Request, sequence: CachedSequence) -> Draft:
    """A request as the native code takes it: its pages, and its noise."""
    draft = Draft(pages=sequence.pages.ctypes.data)
    if not request.params.is_greedy:
        draft.temperature = request.params.temperature
        draft.key[:] = request.sampler.noise.key
    return draft


def mask_for(request: Request, draft: Draft) -> NDArray[np.bool_] | None:
    """Have a draft keep to a request's grammar; the mask must not go away before the native call."""
    grammar = request.sampler.grammar
    mask = None if grammar is None else np.ascontiguousarray(grammar.mask(), np.bool_)
    draft.mask = None if mask is None else mask.ctypes.data
    return mask


def tree_of(draft: Draft, source: str) -> DraftTree:
    """The tree that the native code has grown."""
    count = draft.num_nodes
    scores = draft.scores[:count]
    buckets = tuple(map(bucket_of, scores, draft.depths[:count]))
    return DraftTree(
        tuple(draft.tokens[:count]), tuple(draft.parents[:count]), tuple(scores), (source,) * count, buckets
    )


class NativeLevels:
    """See `Levels`."""

    def __init__(self, decoder: Decoder, drafting: Drafting) -> None:
        self.decoder, self._drafting = decoder, drafting

    def take_up(self, request: Request, sequence: CachedSequence) -> FedDraft:
        """See `Levels`."""
        return FedDraft(request, sequence)

    def num_tokens(self, request: Request, fed: object) -> int:
        """See `Levels`: the target's."""
        return len(request.tokens)

    def grow(self, asked: Sequence[Asked], shape: Shape, source: str) -> list[DraftTree]:
        """See `Levels`."""
        max_missing = self.decoder.max_rows // len(asked)
        growing: list[FedDraft] = []
        masks = []  # they must not go away before the call
        for request, fed, limits in asked:
            assert isinstance(fed, FedDraft)
            fed.set(request, self.decoder.read(fed.sequence, request.tokens, max_missing), limits)
            masks.append(mask_for(request, fed.draft))
            growing.append(fed)
        self._drafting.grow([fed.draft for fed in growing], shape.width, shape.branch)
        for fed in growing:
            fed.sequence.length = fed.draft.length
        return [fed.tree(source) for fed in growing]
