"""Servers that wait while another has its turn: stopped, since some of them wait by spinning.

vLLM's engine and its workers look for messages without pause for a second after the last one (`SpinCondition`), which
is as long as a short turn of the next server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not been waited for. Linux only."""
    found: list[int] = []
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def family(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(one for child in children(pid) for one in family(child))]


class Turns:
    """Lets one of some servers run.

    Args:
        servers: each one's process, by its base URL.
    """

    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = servers

    def give(self, base_url: str) -> None:
        """Stop all but one."""
        for other, pid in self._servers.items():
            if other != base_url:
                _tell(pid, signal.SIGSTOP)
        _tell(self._servers[base_url], signal.SIGCONT)

    def end(self) -> None:
        """Let all run on, so that they can end."""
        for pid in self._servers.values():
            _tell(pid, signal.SIGCONT)


@contextmanager
def taking_turns(servers: Mapping[str, int]) -> Iterator[Turns]:
    """Servers of which one runs at a time, until the `with` ends."""
    turns = Turns(servers)
    try:
        yield turns
    finally:
        turns.end()


def _tell(pid: int, number: int) -> None:
    for one in family(pid):
        with suppress(ProcessLookupError):
            os.kill(one, number)
