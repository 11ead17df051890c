"""A block head's proposals in one native call: Python hands over what each request is, and takes what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._block.growing import LEAST
from paceline.drafters._draft_model.fed import bucket_of
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree
from paceline.errors import DrafterError
from paceline.heads.block_guest import BlockGuest
from paceline.heads.weights import Floats, Weights
from paceline.model.head_forward import RecordedHead
from paceline.native.blocks import Blocks, BlockShape, TransitionArrays
from paceline.native.layout import PAGE, Draft

if TYPE_CHECKING:
    from paceline.model.pool import CachedSequence

Asked = tuple[Request, "CachedSequence", DraftLimits]


class NativeTrees:
    """See `Trees`."""

    def __init__(self, guest: BlockGuest, forward: RecordedHead, d2t: NDArray[np.int64] | None) -> None:
        config, self.d2t = guest.config, d2t
        shape = BlockShape(
            config.block_size, config.first_slot, config.is_causal, config.num_logits, config.vocab_size, LEAST
        )
        tokens, positions = forward.inputs
        self._blocks = Blocks(forward.library, forward.frame, forward.parts, (tokens, positions), shape, d2t)

    def grow(self, asked: Sequence[Asked], weights: Weights | None, source: str) -> list[DraftTree]:
        """See `Trees`."""
        drafts, masks = [], []  # masks must not go away before the call
        for request, sequence, limits in asked:
            grammar = request.sampler.grammar
            mask = None if grammar is None else np.ascontiguousarray(grammar.mask(), np.bool_)
            masks.append(mask)
            drafts.append(_draft(request, sequence, limits, mask))
        arrays = None if weights is None else TransitionArrays(weights.w1, weights.w2, weights.joint, weights.columns)
        self._blocks.grow(drafts, arrays)
        return [_tree(draft, source) for draft in drafts]

    def said(self, place: int) -> Floats:
        """See `Trees`."""
        return self._blocks.said(place)


def _draft(request: Request, sequence: CachedSequence, limits: DraftLimits, mask: NDArray[np.bool_] | None) -> Draft:
    """A request as the native code takes it."""
    draft = Draft(pages=sequence.pages.ctypes.data, length=sequence.length, position=len(request.tokens))
    draft.max_nodes, draft.max_depth = min(limits.max_nodes, PAGE), limits.max_depth
    draft.num_fed, draft.fed_tokens[0] = 1, request.tokens[-1]
    draft.mask = None if mask is None else mask.ctypes.data
    if not request.params.is_greedy:
        draft.temperature = request.params.temperature
        draft.key[:] = request.sampler.noise.key
    if sequence.length != len(request.tokens) - 1:
        raise DrafterError(f"{sequence.length} positions are committed of {len(request.tokens)} tokens")
    return draft


def _tree(draft: Draft, source: str) -> DraftTree:
    count = draft.num_nodes
    scores = draft.scores[:count]
    buckets = tuple(map(bucket_of, scores, draft.depths[:count]))
    return DraftTree(
        tuple(draft.tokens[:count]), tuple(draft.parents[:count]), tuple(scores), (source,) * count, buckets
    )
