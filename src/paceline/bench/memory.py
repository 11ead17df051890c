"""The bandwidth floor: no forward can be faster than reading its weights once.

Knows nothing of attention or caches, whose bytes are few beside the weights at short contexts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from paceline.bench.timing import timed
from paceline.model.linears import NativeEmbedding, NativeLinear
from paceline.model.numerics import weight_bytes

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


def measure_bandwidth(device: torch.device) -> Bandwidth:
    """Best of several sums over a large buffer, and of several copies of it."""
    source = torch.ones(_BYTES[device.type] // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)

    def read() -> None:
        source.sum().item()

    def copy() -> None:
        target.copy_(source)
        target[-1].item()  # waits for a GPU

    size = source.numel() * source.element_size()
    fastest = [min(timed(run)[1] for _ in range(_TRIES)) for run in (read, copy)]
    return Bandwidth(size / fastest[0], 2 * size / fastest[1])


def bytes_read(model: Any) -> int:
    """Bytes of weights that one forward reads: all but the input embedding, of which it takes a few rows.

    A tied embedding is read as the output layer's weight. Weights that Paceline laid out anew count in that
    layout, which is wider than the checkpoint's where the processor lacks its number format.
    """
    embedding = model.get_input_embeddings()
    if isinstance(embedding, NativeEmbedding):
        is_head = any(isinstance(m, NativeLinear) and m.packed is embedding.packed for m in model.modules())
        return weight_bytes(model) - (0 if is_head else embedding.packed.num_bytes)
    heads = [module.weight.data_ptr() for module in model.modules() if type(module) is torch.nn.Linear]
    if type(embedding) is not torch.nn.Embedding or embedding.weight.data_ptr() in heads:
        return weight_bytes(model)
    return weight_bytes(model) - embedding.weight.numel() * embedding.weight.element_size()
