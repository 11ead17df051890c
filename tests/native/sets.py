"""The kernels of every instruction set that this processor has, side by side in one process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from paceline.native import library as library_module
from paceline.native.library import INSTRUCTION_SETS, VARIABLE, Library, library


def all_sets() -> list[Library]:
    """One that `PACELINE_NATIVE` names, else all; none without kernels."""
    found = library()
    if found is None or os.environ.get(VARIABLE):
        return [found] if found else []
    [path] = Path(library_module.__file__).parent.glob("_kernels*.so")
    handle = ctypes.CDLL(str(path))
    handle.paceline_table.restype = ctypes.c_void_p
    tables = {name: handle.paceline_table(name.encode()) for name in INSTRUCTION_SETS}
    return [Library(handle, name, table, True) for name, table in tables.items() if table]
