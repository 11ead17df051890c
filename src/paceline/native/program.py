"""A recorded forward, ready to run: where each value lives, which operations need to wait for others.

Values that depend on the inputs live in one arena, whose blocks are used again once what they held has been read.
An operation waits for all before it only if it touches what another worker may still be reading or writing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch

from paceline.native.layout import Kind, Op
from paceline.native.library import Library
from paceline.native.ops import Runner
from paceline.native.recording import Recording, Step, storage_of

SERIAL = 8192  # elements: sharing less among workers costs more than it saves
SHARED = (Kind.LINEAR, Kind.ATTEND, Kind.COMBINE, Kind.CONVOLVE, Kind.SCAN)
_SMALLEST = 256  # bytes of a block
_MANY = -1  # not a stretch: several workers, or several stretches


class Program:
    """The steps of a recording, from its inputs to `result`, which holds what the last run left there.

    After its first `prefix` steps memory outside holds all that a run leaves there: `run_prefix` ends then.
    """

    def __init__(self, library: Library, recording: Recording, result: torch.Tensor, prefix: int = 0) -> None:
        layout = Layout(recording, result)
        self.result = layout.place(result)
        self.arena_bytes = layout.arena.numel()
        self._segments: list[Callable[[], None]] = []
        waits = Waits()
        native: list[Op] = []
        self._prefix: list[Callable[[], None]] = []
        for index, step in enumerate(recording.steps):
            if index == prefix:
                self._prefix = [*self._segments, *([Runner(library, native)] if native else [])]
            made = step.make(*layout.placed(step))
            if not isinstance(made, Op):
                self._close(library, native)
                self._segments.append(made)
                native = []
                continue
            share(made)
            made.barrier = waits.must_wait(*layout.touched(step), bool(made.is_serial))
            native.append(made)
        self._close(library, native)

    @property
    def num_segments(self) -> int:
        """Calls that one run makes: one, unless PyTorch has to be asked in between."""
        return len(self._segments)

    def _close(self, library: Library, ops: list[Op]) -> None:
        if ops:
            self._segments.append(Runner(library, ops))

    @property
    def runner(self) -> Runner | None:
        """What a run is, if it is one native call."""
        only = self._segments[0] if len(self._segments) == 1 else None
        return only if isinstance(only, Runner) else None

    def run(self) -> None:
        """From what the inputs hold now to `result`."""
        for segment in self._segments:
            segment()

    def run_prefix(self) -> None:
        """From what the inputs hold now to what the memory outside is to hold; `result` is not computed."""
        for segment in self._prefix:
            segment()


def share(op: Op) -> None:
    """Have one worker do an operation alone where sharing it would cost more."""
    op.is_serial = op.kind not in SHARED and math.prod(op.shape[: op.ndim]) <= SERIAL


class Layout:
    """Gives each dynamic storage a block of the arena for as long as it is needed."""

    def __init__(self, recording: Recording, result: torch.Tensor) -> None:
        self._offsets: dict[int, int] = {}
        last = _last_uses(recording.steps)
        last[storage_of(result)] = len(recording.steps)
        free: dict[int, list[int]] = {}
        end = 0
        for index, step in enumerate(recording.steps):
            for storage, tensor in zip(step.written, step.writes, strict=True):
                if storage not in self._offsets and recording.is_moved(storage):
                    size = _block_size(tensor)
                    if free.get(size):
                        self._offsets[storage] = free[size].pop()
                    else:
                        self._offsets[storage], end = end, end + size
            touched = zip((*step.written, *step.read), (*step.writes, *step.reads), strict=True)
            for storage, tensor in dict(touched).items():
                if last[storage] == index and storage in self._offsets:
                    free.setdefault(_block_size(tensor), []).append(self._offsets[storage])
        self.arena = torch.zeros(end, dtype=torch.uint8)
        self._arenas = {torch.uint8: self.arena}  # by dtype: the same memory

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where it will be when the program runs."""
        return self._placed(tensor, storage_of(tensor))

    def placed(self, step: Step) -> list[torch.Tensor]:
        """What a step writes and reads, where it will be when the program runs."""
        return [*map(self._placed, (*step.writes, *step.reads), (*step.written, *step.read))]

    def _placed(self, tensor: torch.Tensor, storage: int) -> torch.Tensor:
        offset = self._offsets.get(storage)
        if offset is None:
            return tensor
        dtype = tensor.dtype
        if dtype not in self._arenas:
            self._arenas[dtype] = self.arena.view(dtype)
        first = offset // dtype.itemsize + tensor.storage_offset()
        return self._arenas[dtype].as_strided(tensor.shape, tensor.stride(), first)

    def offset(self, storage: int) -> int | None:
        """Where the block of a storage begins; None if it lives outside the arena."""
        return self._offsets.get(storage)

    def moved(self, offsets: dict[int, int]) -> Layout:
        """The same arena for the storages of another recording."""
        other = copy.copy(self)
        other._offsets = offsets
        return other

    def touched(self, step: Step) -> tuple[set[int], set[int]]:
        """The memory that a step reads and that it writes: blocks, or storages outside the arena."""
        return set(map(self._key, step.read)), set(map(self._key, step.written))

    def _key(self, storage: int) -> int:
        return ~self._offsets[storage] if storage in self._offsets else storage  # addresses are positive


def _last_uses(steps: Sequence[Step]) -> dict[int, int]:
    return {storage: index for index, step in enumerate(steps) for storage in (*step.written, *step.read)}


def _block_size(tensor: torch.Tensor) -> int:
    return max(_SMALLEST, 1 << (tensor.untyped_storage().nbytes() - 1).bit_length())


class Waits:
    """What has been touched since everything was last waited for, and by which operations.

    Small operations that follow each other are one piece of work for one worker: they need not wait for each other.
    """

    def __init__(self) -> None:
        self._stretch = 0  # of small operations without a wait between them
        self._read: dict[int, int] = {}  # memory -> the stretch that did it, or _MANY
        self._written: dict[int, int] = {}

    def must_wait(self, reads: set[int], writes: set[int], is_serial: bool) -> bool:
        """True if a step that reads and writes these must wait for all before it; notes it."""
        found = [self._written[k] for k in reads | writes if k in self._written]
        found += [self._read[k] for k in writes if k in self._read]
        must = not all(is_serial and stretch == self._stretch for stretch in found)
        if must:
            self._read.clear()
            self._written.clear()
        if must or not is_serial:
            self._stretch += 1
        own = self._stretch if is_serial else _MANY
        for memory, keys in ((self._read, reads), (self._written, writes)):
            for key in keys:
                memory[key] = own if memory.get(key, own) == own else _MANY
        return must
