"""Proposals of a block head, each in one native call: csrc/block.c over its recorded forwards."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.native.frame import Frame
from paceline.native.layout import PAGE, ROW_INTS, SEQUENCE_INTS, BlockModel, Draft
from paceline.native.library import Library
from paceline.native.ops import Runner, require, scratch

Floats = NDArray[np.float32]

# Makes the forward of so many rows: its operations, and what it says (rows, num_logits + num_features) float32.
Record = Callable[[int], tuple[Runner, torch.Tensor]]


class BlockShape(NamedTuple):
    """What is the same for all blocks of a head."""

    block_size: int
    first_slot: int
    is_causal: bool
    num_logits: int
    vocab_size: int
    least: float  # chance of being reached that a node must have


class TransitionArrays(NamedTuple):
    """A transition's weights, float32 and contiguous; see csrc/block.h."""

    w1: Floats  # (V, r)
    w2: Floats  # (num_logits, r)
    joint: Floats  # (F, state + r)
    columns: Floats  # (r, num_logits): w2 again


class Blocks:
    """A block head's recorded forwards, ready to draft.

    Args:
        library: the kernels.
        frame: that all recordings read.
        record: makes a recording.
        inputs: tokens and positions, int64: those of masks are there already.
        shape: of the blocks.
        ids: (num_logits,) the target's number of each of the head's tokens; None where they are the same.
    """

    def __init__(
        self,
        library: Library,
        frame: Frame,
        record: Record,
        inputs: tuple[torch.Tensor, torch.Tensor],
        shape: BlockShape,
        ids: NDArray[np.int64] | None,
    ) -> None:
        self._library, self._frame, self._record = library, frame, record
        self._inputs, self._shape, self._ids = inputs, shape, ids
        self._scored = np.zeros(shape.num_logits, np.float32)
        self._models: dict[int, tuple[BlockModel, Runner]] = {}
        self._said: dict[int, torch.Tensor] = {}  # by number of blocks
        self._count = 0  # of the last call
        if ids is not None:
            is_sound = ids.dtype == np.int64 and ids.flags.c_contiguous and len(ids) == shape.num_logits
            require(is_sound and 0 <= ids.min() <= ids.max() < shape.vocab_size, "ids outside the vocabulary")

    def grow(self, drafts: Sequence[Draft], transition: TransitionArrays | None) -> None:
        """Draft for requests; the fields of `Draft` say from what, and what came of it.

        Each request's first fed token is its pending one, and its pages have room for a block behind `length`.
        """
        size = self._shape.block_size
        tokens = self._inputs[0]
        require(len(drafts) > 0 and len(drafts) * size <= len(tokens), f"{len(drafts)} blocks of {size}")
        model, runner = self._model(len(drafts))
        states = self._install(model, transition)
        last = max([draft.length + size for draft in drafts])
        rows = len(drafts) * size
        room = len(drafts) * (SEQUENCE_INTS + 2 * size + last // PAGE + 1) + rows * (ROW_INTS + 1)
        self._count = len(drafts)
        self._frame.make_room(room, rows, last)
        self._library.expect()
        places = (ctypes.c_void_p * len(drafts))(*map(ctypes.addressof, drafts))
        self._library.block(ctypes.addressof(model), places, runner.scratch_bytes, scratch)
        del states  # it had to outlive the call

    def said(self, place: int) -> Floats:
        """(proposals, num_logits + num_features) of the last call's draft at that place, valid until the next call."""
        require(0 <= place < self._count, f"draft {place} of {self._count}")
        size = self._shape.block_size
        rows: Floats = self._said[self._count][place * size : (place + 1) * size].numpy()
        return rows[self._shape.first_slot :]

    def _model(self, count: int) -> tuple[BlockModel, Runner]:
        if count not in self._models:
            runner, said = self._record(count * self._shape.block_size)
            width = said.shape[1]
            require(said.dtype == torch.float32 and said.is_contiguous(), f"what the head says is {said.dtype}")
            shape = self._shape
            self._models[count] = (
                BlockModel(
                    num_features=width - shape.num_logits,
                    ops=ctypes.addressof(runner.ops),
                    num_ops=len(runner.ops),
                    tokens=self._inputs[0].data_ptr(),
                    positions=self._inputs[1].data_ptr(),
                    said=said.data_ptr(),
                    header=self._frame.header.data_ptr(),
                    block_size=shape.block_size,
                    first_slot=shape.first_slot,
                    is_causal=shape.is_causal,
                    num_logits=shape.num_logits,
                    vocab_size=shape.vocab_size,
                    ids=None if self._ids is None else self._ids.ctypes.data,
                    least=shape.least,
                    scored=self._scored.ctypes.data,
                ),
                runner,
            )
            self._said[count] = said
        return self._models[count]

    def _install(self, model: BlockModel, transition: TransitionArrays | None) -> Floats | None:
        """Point at a transition's weights; its scratch, which must live as long as they are used."""
        if transition is None:
            require(model.num_features == 0, f"{model.num_features} features for no transition")
            model.rank = 0
            return None
        w1, w2, joint, columns = transition
        rank = w1.shape[1]
        state = joint.shape[1] - rank
        for array in transition:
            require(array.dtype == np.float32 and array.flags.c_contiguous, f"a transition of {array.dtype}")
        require(len(w1) == self._shape.vocab_size, f"w1 is {w1.shape}")
        require(w2.shape == (self._shape.num_logits, rank), f"w2 is {w2.shape}")
        require(columns.shape == w2.shape[::-1], f"columns are {columns.shape}")
        require(len(joint) == model.num_features and state in (0, rank), f"joint is {joint.shape}")
        require(model.num_features in (0, rank, 3 * rank), f"{model.num_features} features of rank {rank}")
        states = np.zeros((PAGE + 1) * state + model.num_features + state + 2 * rank, np.float32)
        model.rank, model.state_size = rank, state
        model.w1, model.w2, model.joint = w1.ctypes.data, w2.ctypes.data, joint.ctypes.data
        model.states, model.columns = states.ctypes.data, columns.ctypes.data
        return states
