"""Large tables of zeros, of which few places are ever written at first."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def zeros(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """(count,) zeros, in memory that is taken page by page as it is written.

    numpy asks for large pages: the first few hundred scattered writes would clear tens of megabytes.
    """
    memory = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype, count)
