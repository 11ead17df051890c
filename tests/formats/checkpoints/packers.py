"""Tensors of each format from known codes, scales and zeros, packed number by number; what they mean, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Linear:
    """Codes (N, K), scales and zeros (N, groups), and the group of each k."""

    codes: np.ndarray
    scales: torch.Tensor
    zeros: np.ndarray
    group_of: np.ndarray
    bits: int

    @property
    def values(self) -> np.ndarray:
        scales = self.scales.to(torch.float64).numpy()
        return scales[:, self.group_of] * (self.codes - self.zeros[:, self.group_of]).astype(np.float64)


def linear(
    rng: np.random.Generator, n: int, k: int, bits: int, size: int, *, sym: bool, dtype: torch.dtype = torch.float16
) -> Linear:
    """A random one, each code, and each zero if they differ, drawn evenly."""
    size = k if size == -1 else size
    count = -(-k // size)
    scales = torch.from_numpy(rng.uniform(0.5, 1.5, (n, count)) / 2**7).to(dtype)
    zeros = np.full((n, count), 1 << (bits - 1)) if sym else rng.integers(0, 1 << bits, (n, count))
    return Linear(rng.integers(0, 1 << bits, (n, k)), scales, zeros, np.arange(k) // size, bits)


def stream(numbers: np.ndarray, bits: int) -> torch.Tensor:
    """Each row's numbers as one long integer, the first lowest, cut into int32 words."""
    rows = []
    for row in numbers:
        whole = sum(int(x) << bits * i for i, x in enumerate(row))
        count = -(-len(row) * bits // 32)
        rows.append([whole >> 32 * i & 0xFFFFFFFF for i in range(count)])
    return torch.from_numpy(np.array(rows, dtype=np.uint32).view(np.int32).copy())


def gptq(x: Linear, *, version: int = 1, g_idx: bool = True) -> dict[str, torch.Tensor]:
    less = 1 if version == 1 else 0
    tensors = {
        "qweight": stream(x.codes, x.bits).T.contiguous(),
        "qzeros": stream((x.zeros - less).T % (1 << x.bits), x.bits),
        "scales": x.scales.T.contiguous(),
    }
    return tensors | ({"g_idx": torch.from_numpy(x.group_of.astype(np.int32))} if g_idx else {})


def awq(x: Linear) -> dict[str, torch.Tensor]:
    columns = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(table: np.ndarray) -> torch.Tensor:
        mixed = table.reshape(len(table), -1, 8)[..., columns].reshape(len(table), -1)
        return stream(mixed, 4)

    return {"qweight": packed(x.codes.T), "qzeros": packed(x.zeros.T), "scales": x.scales.T.contiguous()}
