"""A folder that a server's processes count in, there for as long as the server runs.

The process becomes vLLM and cannot clean up. So it holds a lock on a file in the folder, which `exec` keeps and its end
lets go of; whoever needs a folder next removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from paceline.cache import cache_folder

_LOCK = "held"


def held_folder() -> Path:
    """A new, empty folder, held until this process has ended, whatever it becomes.

    Raises:
        OSError: there can be none.
    """
    parent = cache_folder() / "vllm" / "metrics"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        with suppress(OSError):
            _remove_unheld(folder)
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent))
        handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        with suppress(OSError):  # another one that cleans up was faster
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / _LOCK).exists():
                os.set_inheritable(handle, True)
                return folder
        os.close(handle)


def _remove_unheld(folder: Path) -> None:
    handle = os.open(folder / _LOCK, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(handle)
