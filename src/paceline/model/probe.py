"""Which row counts give a row the same bits on this model? Measured at load, never assumed.

One small tree is run with the model's real forward: alone, at each candidate row count, with its rows in other
places and beside other neighbours. Only counts whose every row has the reference bits are used.

That finds products that sum in another order, which changes nearly every value. An elementwise kernel that rounds
the odd end of a vector differently changes few values, and few rows would show it; so each elementwise operation
of the forward that is given an odd end is tried by itself, on many values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from paceline.model.decoder import Decoder
from paceline.model.numerics import has_odd_end
from paceline.model.pool import CachedSequence
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TreeWork

REFERENCE = 16  # rows; every path known gives stable bits here if it does anywhere
ALWAYS = (1, 8, 4, 2, 32)
# In the order of their worth: time may cut this list short, which costs padding and changes no bit.
WHILE_TIME_LASTS = (64, 12, 6, 3, 24, 5, 7, 10, 48, 9, 11, 13, 14, 15, 20, 28, 40)
_PROBED = 5  # rows of the tree under probe
_ROOM = 16  # positions that the deepest probed row may stand behind the prefix
_PREFIX = 2 * PAGE_SIZE + 5  # committed positions: the tail, one shared tile and an odd rest


class Probe:
    """Runs the forward of `decoder` on odd shapes and compares bits."""

    def __init__(self, decoder: Decoder, vocab_size: int, max_length: int) -> None:
        self._decoder = decoder
        self._rng = np.random.default_rng(0)
        self._vocab_size = vocab_size
        room = max(1, max_length - _ROOM)  # the probed rows stand between a neighbour further on and one at the start
        self._sequences = [self._sequence(min(length, room)) for length in (_PREFIX, 3 * PAGE_SIZE, 3)]
        self._probed = TreeWork(self._sequences[0], self._tokens(_PROBED), [-1, 0, 1, 0, 3])

    def _sequence(self, length: int) -> CachedSequence:
        sequence = self._decoder.blank(length + PAGE_SIZE)
        if sequence is None:
            raise RuntimeError("the page pool is too small to probe")
        self._decoder.prefill(sequence, self._tokens(length))
        return sequence

    def _tokens(self, count: int) -> list[int]:
        return [int(t) for t in self._rng.integers(0, self._vocab_size, count)]

    def row_counts(self, seconds: float) -> list[int]:
        """Row counts with the reference's bits, ascending; empty if the reference is not stable itself."""
        deadline = time.perf_counter() + seconds
        # Whatever is odd at some count is odd at one row, or so large at most rows that threads share it.
        self._may_be_uneven = self._is_uneven(1) or self._is_uneven(max(WHILE_TIME_LASTS))
        reference = self._bits(REFERENCE, before=0)
        if not self._is_stable(REFERENCE, reference):
            return []
        stable = [REFERENCE]
        for count in ALWAYS + WHILE_TIME_LASTS:
            if count in WHILE_TIME_LASTS and time.perf_counter() > deadline:
                break
            if self._is_stable(count, reference):
                stable.append(count)
        return sorted(stable)

    def _is_stable(self, count: int, reference: NDArray[np.float32]) -> bool:
        """True if the probed rows have the reference's bits at `count` rows, at several places among others."""
        spare = count - _PROBED
        if self._may_be_uneven and self._is_uneven(count):
            return False
        if spare < 0:
            return all(self._is_stable_alone(row, count, reference) for row in range(_PROBED))
        places = {0, spare, int(self._rng.integers(0, spare + 1))}
        return all(np.array_equal(self._bits(count, before), reference) for before in places)

    def _is_stable_alone(self, row: int, count: int, reference: NDArray[np.float32]) -> bool:
        """The same for counts below the tree's size: a part of it, its ancestors already stored."""
        first = max(0, row - count + 1)
        part = TreeWork(self._probed.sequence, self._probed.tokens[: row + 1], self._probed.parents[: row + 1], first)
        return np.array_equal(self._run([part], count), reference[first : row + 1])

    def _is_uneven(self, count: int) -> bool:
        """True if an elementwise operation of the forward is given an odd end and rounds it differently."""
        work = [self._neighbour(1, count)]
        self._run(work, count)  # whatever is done once only is done before
        with _Elementwise() as operations:
            self._run(work, count)
        return bool(operations.is_uneven)

    def _bits(self, count: int, before: int) -> NDArray[np.float32]:
        """Logits of the probed rows with `before` rows of other sequences in front of them, and more behind."""
        spare = count - _PROBED - before
        front, back = self._neighbour(1, before), self._neighbour(2, spare)
        logits = self._run([w for w in (front, self._probed, back) if len(w.tokens)], count)
        return logits[before : before + _PROBED]

    def _neighbour(self, which: int, count: int) -> TreeWork:
        return TreeWork(self._sequences[which], self._tokens(count), [(i + 1) // 2 - 1 for i in range(count)])

    def _run(self, work: Sequence[TreeWork], count: int) -> NDArray[np.float32]:
        self._decoder.row_counts = (count,)
        return self._decoder.forward(work)

    def close(self) -> None:
        """Give the probe's pages back."""
        for sequence in self._sequences:
            self._decoder.pool.release(sequence)


class _Elementwise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tries every elementwise operation that is given an odd end: do its bits depend on place?"""

    _known: dict[object, bool] = {}  # noqa: RUF012  # kernels do not change while a process runs

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_uneven: bool = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        is_elementwise = torch.Tag.pointwise in func.tags and isinstance(out, torch.Tensor) and out.is_floating_point()
        if is_elementwise and out.ndim and has_odd_end(out.numel()):
            kinds = [(a.dtype, a.ndim > 0) if isinstance(a, torch.Tensor) else a for a in args]
            key = f"{func} {kinds} {kwargs} {out.device} {torch.get_num_threads()}"
            if key not in self._known:
                self._known[key] = is_even(partial(func, **(kwargs or {})), args)
            self.is_uneven |= not self._known[key]
        return out


_VALUES = 100_003  # enough for every thread to get a share
_STRIDE = 160


def is_even(operation: Callable[..., torch.Tensor], args: Sequence[Any]) -> bool:
    """True if an elementwise operation gives a value the same bits wherever it stands; `args` show its arguments."""
    generator = torch.Generator().manual_seed(0)
    whole = [_values_like(arg, generator) for arg in args]

    def at(start: int, size: int) -> torch.Tensor:
        is_vector = [isinstance(arg, torch.Tensor) and arg.ndim > 0 for arg in whole]
        pairs = zip(whole, is_vector, strict=True)
        return operation(*(arg[start : start + size].clone() if v else arg for arg, v in pairs)).nan_to_num()

    expected = at(0, _VALUES)
    places = [(start, 1 + start // _STRIDE % 70) for start in range(0, _VALUES - 70, _STRIDE)]
    places += [(0, size) for size in (2_049, 16_385, 33_001)]
    return all(torch.equal(at(start, size), expected[start : start + size]) for start, size in places)


def _values_like(arg: Any, generator: torch.Generator) -> Any:
    if not isinstance(arg, torch.Tensor) or arg.ndim == 0:
        return arg
    values = torch.randn(_VALUES, generator=generator) * 4
    return (values > 0 if arg.dtype == torch.bool else values).to(arg.device, arg.dtype)


def proven_row_counts(decoder: Decoder, vocab_size: int, max_length: int, seconds: float) -> list[int]:
    """Row counts that give identical bits, or an empty list; leaves `decoder.row_counts` to the caller."""
    probe = Probe(decoder, vocab_size, max_length)
    try:
        with torch.inference_mode():
            return probe.row_counts(seconds)
    finally:
        probe.close()
