"""Whether the machine is busy with other things: how many processors others keep at work, and what that costs.

Linux says in /proc/stat what its processors did; elsewhere a short spin on all of them shows what others leave of them.
Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

BUSY = 0.25  # processors kept at work by others, from which a machine is called busy
_IDLE = slice(3, 5)  # of a line of /proc/stat: idle, and idle while a disk works
_COUNTED = 8  # fields of it: what guests take is counted among the first
_SPIN_SECONDS = 0.2
_GLANCE_SECONDS = 0.3
_BLOCK = bytes(2**20)  # hashed without Python's lock, in about a millisecond


@dataclass(frozen=True)
class CpuTimes:
    """Seconds: by the clock, of this process on all processors, and of everybody on them."""

    wall: float
    own: float
    everybody: float


def num_cores() -> int:
    """Processors that this process may run on."""
    return len(_allowed())


def read_times(text: str, ticks: float, cores: Collection[int]) -> float:
    """Seconds for which some processors have worked, from the text of /proc/stat with so many ticks a second.

    What a host took from its virtual machine is work: it is not there for this process.
    """
    lines = (line.split() for line in text.splitlines())
    wanted = {f"cpu{core}" for core in cores}
    rows = [[int(field) for field in fields[1:][:_COUNTED]] for fields in lines if fields and fields[0] in wanted]
    if not rows:
        raise ValueError("no line for any of these processors")
    return sum(sum(row) - sum(row[_IDLE]) for row in rows) / ticks


def cpu_times() -> CpuTimes | None:
    """These times now; None where there is no /proc/stat that can be read."""
    try:
        ticks, text = os.sysconf("SC_CLK_TCK"), Path("/proc/stat").read_text()
        return CpuTimes(time.perf_counter(), time.process_time(), read_times(text, ticks, _allowed()))
    except (OSError, ValueError, AttributeError):
        return None


class LoadWatch:
    """Watches from its making on how many processors others keep at work."""

    def __init__(self, read: Callable[[], CpuTimes | None] = cpu_times) -> None:
        self._read = read
        self._before = read()

    def busy_elsewhere(self) -> float:
        """Processors, on average since then; where nothing can be read, as a spin now finds it."""
        after = self._read()
        if self._before is None or after is None or after.wall <= self._before.wall:
            return spin()
        others = (after.everybody - self._before.everybody) - (after.own - self._before.own)
        return min(max(others / (after.wall - self._before.wall), 0.0), float(num_cores()))


def busy_now() -> float:
    """Processors that others keep at work, by a glance of a third of a second."""
    watch = LoadWatch()
    time.sleep(_GLANCE_SECONDS)
    return watch.busy_elsewhere()


def spin(seconds: float = _SPIN_SECONDS) -> float:
    """Processors that others do not leave to a process which wants them all: it works on each for a moment."""
    cores = num_cores()
    deadline = time.perf_counter() + seconds
    threads = [Thread(target=_hash_until, args=(deadline,), daemon=True) for _ in range(cores)]
    started, own = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(cores - (time.process_time() - own) / (time.perf_counter() - started), 0.0)


def warning() -> str | None:
    """A line to show before a measurement on a machine that is busy; None on one that is not."""
    busy = busy_now()
    if busy < BUSY:
        return None
    return (
        f"this machine is busy: other processes keep {busy:.1f} of {num_cores()} processors at work, and figures "
        "will show it"
    )


def _hash_until(deadline: float) -> None:
    while time.perf_counter() < deadline:
        hashlib.sha256(_BLOCK).digest()


def _allowed() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
