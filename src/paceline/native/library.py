"""Finds the compiled kernels, chooses an instruction set and a number of workers.

`PACELINE_NATIVE=0` turns the kernels off; the name of an instruction set chooses that one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from paceline.errors import ConfigError
from paceline.native.layout import LAYOUT, layout_of

VARIABLE = "PACELINE_NATIVE"
INSTRUCTION_SETS = (
    "avx512-bf16",
    "avx512-vnni",
    "avx512",
    "avx2-vnni",
    "avx2",
    "neon-dot",
    "neon",
    "portable",
)  # the best first
_LINE = 64


class Recycling:
    """What the drafter `recycle` does natively: see csrc/recycle.c."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        pointer, size, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
        self.read, self.learn = handle.paceline_recycle_read, handle.paceline_recycle_learn
        self.grow = handle.paceline_recycle_grow
        self.read.argtypes = [pointer, pointer, size, size]
        self.learn.argtypes = [pointer, pointer, pointer, pointer, pointer, size]
        self.grow.argtypes = [pointer, size, size, real, size, size, pointer]
        for function in (self.read, self.learn, self.grow):
            function.restype = None


class Library:
    """The kernels of one instruction set."""

    def __init__(self, handle: ctypes.CDLL, name: str, table: int, is_preferred: bool) -> None:
        self.name = name
        self.is_preferred = is_preferred  # over PyTorch's kernels
        self._table = table
        self._run = handle.paceline_run
        self._run.restype = None
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._run.argtypes = [pointer, pointer, size, ctypes.c_int, pointer, size]
        self._draft = handle.paceline_draft
        self._draft.restype = None
        self._draft.argtypes = [pointer, pointer, size, pointer, ctypes.c_int, pointer, size]
        self._block = handle.paceline_block
        self._block.restype, self._block.argtypes = None, self._draft.argtypes
        self._describe = handle.paceline_describe
        self._describe.restype, self._describe.argtypes = ctypes.c_int, [pointer, pointer, size, size, pointer]
        self.recycling = Recycling(handle)
        self._scratch_bytes = handle.paceline_scratch_bytes
        self._scratch_bytes.restype = size
        self._expect = handle.paceline_expect
        self._expect.restype, self._expect.argtypes = None, [ctypes.c_int]
        self._advise = handle.paceline_advise
        self._advise.restype, self._advise.argtypes = None, [pointer, size]
        self._forget = handle.paceline_forget
        self._forget.restype, self._forget.argtypes = None, [pointer, size]

    @property
    def num_threads(self) -> int:
        """Workers of a run: what `torch.set_num_threads` or OMP_NUM_THREADS say, within what the process may use."""
        return min(torch.get_num_threads(), processors())

    def scratch_bytes(self, op: ctypes.Structure) -> int:
        """Bytes of scratch that each worker needs for an operation."""
        return -(-int(self._scratch_bytes(ctypes.byref(op))) // _LINE) * _LINE

    def run(
        self, ops: ctypes.Array[Any], count: int, scratch_bytes: int, scratch: Callable[[int], torch.Tensor]
    ) -> None:
        """Run `count` operations with `scratch_bytes` for each worker. Other Python threads may run meanwhile."""
        workers = self.num_threads
        memory = scratch(workers * scratch_bytes)
        address = ctypes.addressof(ops)
        self._run(self._table, address, count, workers, memory.data_ptr(), scratch_bytes)

    def expect(self) -> None:
        """Wake the other workers for a run that is about to come; without one they sleep again in 0.1 ms."""
        self._expect(self.num_threads)

    def draft(
        self, model: int, drafts: ctypes.Array[Any], scratch_bytes: int, scratch: Callable[[int], torch.Tensor]
    ) -> None:
        """Grow proposals: a `DraftModel`'s address, and those of the `Draft`s; the rest as in `run`."""
        workers = self.num_threads
        memory = scratch(workers * scratch_bytes).data_ptr()
        how = (self._table, workers, memory, scratch_bytes)
        self._draft(model, ctypes.addressof(drafts), len(drafts), *how)

    def block(
        self, model: int, drafts: ctypes.Array[Any], scratch_bytes: int, scratch: Callable[[int], torch.Tensor]
    ) -> None:
        """The same of a block head: a `BlockModel`'s address."""
        workers = self.num_threads
        memory = scratch(workers * scratch_bytes).data_ptr()
        self._block(model, ctypes.addressof(drafts), len(drafts), self._table, workers, memory, scratch_bytes)

    def describe(self, header: int, drafts: ctypes.Array[Any], num_pages: int, positions: int) -> bool:
        """Make a frame the rows of the `Draft`s at these addresses; False if they are not sound."""
        return bool(self._describe(header, ctypes.addressof(drafts), len(drafts), num_pages, positions))

    def advise(self, memory: torch.Tensor) -> None:
        """Ask for large pages under a tensor that will be read as a stream."""
        self._advise(memory.data_ptr(), memory.numel() * memory.element_size())

    def forget(self, mapped: torch.Tensor) -> None:
        """Let go of the memory of a part of a mapped file, which nobody wrote to: it is read anew if need be."""
        self._forget(mapped.data_ptr(), mapped.numel() * mapped.element_size())


@functools.cache
def library() -> Library | None:
    """The kernels in use, or None: not compiled, or turned off.

    Raises:
        ConfigError: `PACELINE_NATIVE` names an instruction set that does not exist or that this processor lacks, or
            the compiled kernels are those of another version.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "0":
        return None
    if wanted and wanted not in INSTRUCTION_SETS:
        raise ConfigError(f"{VARIABLE} is {wanted!r}; allowed: 0 (off), {', '.join(INSTRUCTION_SETS)}")
    path = _compiled()
    if path is None:
        return None
    handle = ctypes.CDLL(str(path))
    _check(handle, path)
    handle.paceline_table.restype = ctypes.c_void_p
    for name in (wanted,) if wanted else INSTRUCTION_SETS:
        table = handle.paceline_table(name.encode())
        if table:
            # Without vector instructions of its own the library's kernels win, wherever they are exact.
            return Library(handle, name, table, is_preferred=name != "portable" or name == wanted)
    raise ConfigError(f"{VARIABLE} is {wanted!r}, which this processor does not have")


def status() -> str:
    """One sentence: which kernels are in use, and what it costs if none are."""
    if os.environ.get(VARIABLE) == "0":
        return f"native kernels: off ({VARIABLE}=0)"
    found = library()
    if found is None:
        return (
            "native kernels: none (no C compiler was found at install); PyTorch's are used, and verifying several "
            "tokens costs more: install a C compiler and Paceline again"
        )
    return f"native kernels: {found.name}, {found.num_threads} threads"


def _check(handle: ctypes.CDLL, path: Path) -> None:
    found = layout_of(handle)
    if found != LAYOUT:
        raise ConfigError(
            f"the compiled kernels {path.name} are of another version (layout {found}, not {LAYOUT}): "
            f"install Paceline again, or set {VARIABLE}=0"
        )


def _compiled() -> Path | None:
    folder = Path(__file__).parent
    names = (f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return next((folder / name for name in names if (folder / name).is_file()), None)


@functools.cache
def processors() -> int:
    """Processors that the process may use: those it may run on, within the container's limit, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(count, max(1, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # no container, or "max"
        return count
