"""Processes that do nothing but compute, as a busy machine has them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_STARTING = 0.3  # seconds until they are at it
_SPIN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
while os.getppid() == int(sys.argv[1]):
    for _ in range(10 ** 6): pass
"""


@contextmanager
def busy_processes(count: int) -> Iterator[list[int]]:
    """So many of them while a `with` lasts. They are killed at its end, and end by themselves if this process is.

    Yields their process ids.
    """
    command = [sys.executable, "-S", "-E", "-c", _SPIN, str(os.getpid())]
    with ExitStack() as stack:
        ids = []
        for _ in range(count):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(_end, process)
            ids.append(process.pid)
        time.sleep(_STARTING)
        yield ids


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
