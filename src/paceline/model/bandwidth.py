"""The bytes per second that this machine moves: no forward can be faster than reading its weights once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_BYTES = {"cpu": 2**28, "cuda": 2**30}  # well beyond any cache
_TRIES = 7


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second that this machine was seen to move: reading alone, and reading and writing."""

    read: float
    copy: float

    @property
    def best(self) -> float:
        """The higher of the two, so that the floor is never set too high."""
        return max(self.read, self.copy)


def measure_bandwidth(where: torch.device | str) -> Bandwidth:
    """Best of several sums over a large buffer, and of several copies of it."""
    device = torch.device(where)
    source = torch.ones(_BYTES[device.type] // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)

    def read() -> None:
        source.sum().item()

    def copy() -> None:
        target.copy_(source)
        target[-1].item()  # waits for a GPU

    size = source.numel() * source.element_size()
    fastest = [min(_seconds(run) for _ in range(_TRIES)) for run in (read, copy)]
    return Bandwidth(size / fastest[0], 2 * size / fastest[1])


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
