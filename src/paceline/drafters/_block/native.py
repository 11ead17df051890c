"""A block head's proposals in one native call: Python hands over what each request is, and takes what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._block.growing import LEAST
from paceline.drafters._draft_model.native import draft_of, mask_for, tree_of
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
        drafts = [_draft(*one) for one in asked]
        masks = [mask_for(request, draft) for (request, _, _), draft in zip(asked, drafts, strict=True)]
        arrays = None if weights is None else TransitionArrays(weights.w1, weights.w2, weights.joint, weights.columns)
        self._blocks.grow(drafts, arrays)
        del masks  # they had to outlive the call
        return [tree_of(draft, source) for draft in drafts]

    def said(self, place: int) -> Floats:
        """See `Trees`."""
        return self._blocks.said(place)


def _draft(request: Request, sequence: CachedSequence, limits: DraftLimits) -> Draft:
    """A request as the native code takes it."""
    draft = draft_of(request, sequence)
    draft.length, draft.position = sequence.length, len(request.tokens)
    draft.max_nodes, draft.max_depth = min(limits.max_nodes, PAGE), limits.max_depth
    draft.num_fed, draft.fed_tokens[0] = 1, request.tokens[-1]
    if sequence.length != len(request.tokens) - 1:
        raise DrafterError(f"{sequence.length} positions are committed of {len(request.tokens)} tokens")
    return draft
