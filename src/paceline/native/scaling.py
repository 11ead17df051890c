"""Programs for any number of rows from the recordings of two: written down once, worked out for the others.

A forward asks for the same operations whatever the number of its rows; only shapes, strides and places in memory grow
with it, each in proportion. So two recordings, of few rows and of many, give every number in every operation as a
line, and what lies between costs no run of the model. Whatever is no such line is refused, and recorded each time.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.native.layout import Op, View
from paceline.native.library import Library
from paceline.native.ops import Runner
from paceline.native.program import SERIAL, SHARED, Layout, Waits
from paceline.native.recording import Recording, storage_of

_WORD = 8  # bytes; an operation is made of integers and floats of this size
_VIEWS = Op.views.offset // _WORD
_SHAPE = range(Op.shape.offset // _WORD, _VIEWS)
_DATA = range(_VIEWS, Op.size.offset // _WORD, ctypes.sizeof(View) // _WORD)  # the words that hold addresses
_STRIDES = [word for data in _DATA for word in range(data + 2, data + ctypes.sizeof(View) // _WORD)]
_GROWING = [*_SHAPE, *_DATA, *_STRIDES]
_KIND, _IS_SERIAL, _BARRIER, _NDIM = (field.offset // _WORD for field in (Op.kind, Op.is_serial, Op.barrier, Op.ndim))


class NotScalableError(Exception):
    """Two recordings are not of one forward whose operations grow with the number of rows alone."""


class Recorded(NamedTuple):
    """A forward as it was recorded: the number of its rows, its result, and the steps that are its prefix."""

    num_rows: int
    recording: Recording
    result: torch.Tensor
    prefix: int


class ScaledProgram:
    """A program worked out for a number of rows; see `Program`."""

    def __init__(self, runner: Runner, prefix: int, result: torch.Tensor, kept: object) -> None:
        self.result = result
        self._kept = kept  # what the operations hold addresses of
        self.run = self.runner = runner
        self.run_prefix = runner.first(prefix)


class ProgramFamily:
    """The programs for numbers of rows between those of two recordings, all in the memory of the larger one.

    Raises:
        NotScalableError: see there.
    """

    def __init__(self, library: Library, few: Recorded, many: Recorded) -> None:
        self._library, self._first, self._prefix = library, few.num_rows, few.prefix
        layout = Layout(many.recording, many.result)
        smaller = _matched(few, many, layout)
        self._ops = [_made(few, smaller), _made(many, layout)]
        pairs = enumerate(zip(*self._ops, strict=True))
        self._needing = [place for place, pair in pairs if any(map(library.scratch_bytes, pair))]
        self._touched = [layout.touched(step) for step in many.recording.steps]
        self._barriers: dict[bytes, list[bool]] = {}  # by the operations that one worker does alone
        _share_constants(self._ops, few.recording, many.recording, layout.arena)
        self._words, grown = (_words(ops) for ops in self._ops)
        self._slopes = _slopes(grown - self._words, many.num_rows - few.num_rows)
        self._results = (smaller.place(few.result), layout.place(many.result))

    def program(self, num_rows: int) -> ScaledProgram:
        """The program for so many rows. Two do not run at once: they share memory."""
        words = self._words + self._slopes * (num_rows - self._first)
        words[:, _IS_SERIAL] = serial = _are_serial(words)
        words[:, _BARRIER] = self._waiting(serial)
        runner = Runner(self._library, (Op * len(words)).from_buffer_copy(words.data), self._needing)
        few, many = self._results
        result = many.as_strided((num_rows, *few.shape[1:]), few.stride(), few.storage_offset())
        return ScaledProgram(runner, self._prefix, result, (self._ops, many))

    def _waiting(self, serial: NDArray[np.bool_]) -> list[bool]:
        """Which operations wait for all before them."""
        key = serial.tobytes()
        if key not in self._barriers:
            waits = Waits()
            pairs = zip(self._touched, serial.tolist(), strict=True)
            self._barriers[key] = [waits.must_wait(*touched, alone) for touched, alone in pairs]
        return self._barriers[key]


def _matched(few: Recorded, many: Recorded, layout: Layout) -> Layout:
    """Where the values of `few` live: each where its like in `many` does."""
    offsets: dict[int, int | None] = {}
    try:
        if few.prefix != many.prefix:
            raise NotScalableError("the layers end elsewhere")
        for one, other in zip(few.recording.steps, many.recording.steps, strict=True):
            pairs = zip((*one.writes, *one.reads), (*other.writes, *other.reads), strict=True)
            storages = zip((*one.written, *one.read), (*other.written, *other.read), strict=True)
            for (small, large), (mine, theirs) in zip(pairs, storages, strict=True):
                _match(offsets, small, large, mine, layout.offset(theirs))
    except ValueError as error:
        raise NotScalableError("another number of operations or operands") from error
    _match(offsets, few.result, many.result, storage_of(few.result), layout.offset(storage_of(many.result)))
    if few.result.stride() != many.result.stride() or few.result.shape[1:] != many.result.shape[1:]:
        raise NotScalableError("a result that is laid out anew")
    return layout.moved({storage: offset for storage, offset in offsets.items() if offset is not None})


def _match(
    offsets: dict[int, int | None], small: torch.Tensor, large: torch.Tensor, storage: int, offset: int | None
) -> None:
    """Have the storage of `small` live at the offset of that of `large`."""
    if offsets.setdefault(storage, offset) != offset:
        raise NotScalableError("values that share memory at one number of rows alone")
    if small.untyped_storage().nbytes() > large.untyped_storage().nbytes():
        raise NotScalableError("a value that grows as rows become fewer")


def _made(recorded: Recorded, layout: Layout) -> list[Op]:
    found = []
    for step in recorded.recording.steps:
        op = step.make(*layout.placed(step))
        if not isinstance(op, Op):
            raise NotScalableError("work that is not the kernels'")
        found.append(op)
    return found


def _share_constants(ops: list[list[Op]], few: Recording, many: Recording, arena: torch.Tensor) -> None:
    """Have both lists read one copy of a constant that each recording computed for itself; none is in the arena."""
    for small, large in zip(*ops, strict=True):
        for view, other, mine, theirs in zip(small.views, large.views, small.tensors, large.tensors, strict=False):
            if mine is None or theirs is None or view.data == other.data or storage_of(mine) == storage_of(arena):
                continue
            if few.is_constant(mine) and many.is_constant(theirs):
                if mine.storage_offset() == theirs.storage_offset() and torch.equal(_bytes(mine), _bytes(theirs)):
                    other.data = view.data
                elif _are_filled_alike(mine, theirs):
                    view.data = other.data  # the larger one, which holds as many as any number of rows needs
                else:
                    raise NotScalableError("a constant that changes with the number of rows")


def _are_filled_alike(small: torch.Tensor, large: torch.Tensor) -> bool:
    """True if everything in both tensors' memory is one and the same value, and the second has no less of it."""
    values = [_bytes(tensor).view(tensor.dtype) for tensor in (small, large)]
    if small.dtype != large.dtype or not len(values[0]) or len(values[0]) > len(values[1]):
        return False
    first = values[0][0]
    return small.storage_offset() == large.storage_offset() and all(bool((each == first).all()) for each in values)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def _words(ops: list[Op]) -> NDArray[np.int64]:
    """(operations, words) what operations are made of, but for how workers share them."""
    words: NDArray[np.int64] = np.frombuffer(bytes((Op * len(ops))(*ops)), np.int64).reshape(len(ops), -1).copy()
    words[:, [_IS_SERIAL, _BARRIER]] = 0
    return words


def _are_serial(words: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(operations,) what `share` says of each."""
    shapes = words[:, _SHAPE.start : _SHAPE.stop]
    sizes = np.where(np.arange(len(_SHAPE)) < words[:, _NDIM, None], shapes, 1).prod(axis=1)
    serial: NDArray[np.bool_] = ~np.isin(words[:, _KIND], SHARED) & (sizes <= SERIAL)
    return serial


def _slopes(growth: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """What each word grows by with each row."""
    slopes: NDArray[np.int64] = growth // rows
    if (slopes * rows != growth).any() or (slopes < 0).any():
        raise NotScalableError("numbers that do not grow in proportion")
    if np.delete(slopes, _GROWING, axis=1).any():
        raise NotScalableError("other operations, dtypes or numbers")
    return slopes
