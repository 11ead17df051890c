"""Tensors of each format from known codes, scales and zeros, packed number by number; what they mean, in float64."""

from __future__ import annotations

import json
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
    """Each row's numbers bit by bit, the first and its lowest bit first, cut into int32 words."""
    single = (numbers[..., None] >> np.arange(bits) & 1).reshape(len(numbers), -1)
    whole = np.pad(single, ((0, 0), (0, -single.shape[1] % 32)))
    octets = np.packbits(whole.astype(np.uint8), axis=1, bitorder="little")
    return torch.from_numpy(octets.view("<i4").copy())


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


def compressed(x: Linear, *, packed: bool = True, zeros: bool = False, g_idx: bool = False) -> dict[str, torch.Tensor]:
    """compressed-tensors: in words, or as bytes; codes and zeros are signed there."""
    middle = 1 << (x.bits - 1)
    signed = torch.from_numpy((x.codes - middle).astype(np.int8))
    shape = torch.tensor(x.codes.shape)
    tensors = {"weight_packed": stream(x.codes, x.bits), "weight_shape": shape} if packed else {"weight": signed}
    if zeros:
        unsigned = stream(x.zeros.T, x.bits).T.contiguous()
        tensors["weight_zero_point"] = unsigned if packed else torch.from_numpy((x.zeros - middle).astype(np.int8))
    if g_idx:
        tensors["weight_g_idx"] = torch.from_numpy(x.group_of.astype(np.int32))
    return tensors | {"weight_scale": x.scales}


def e4m3(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Every number of it but the two that are none, and infinity it has not."""
    octets = rng.integers(0, 254, shape).astype(np.uint8)
    octets[octets >= 127] += 1
    return torch.from_numpy(octets).view(torch.float8_e4m3fn)


def e4m3_values(tensor: torch.Tensor) -> np.ndarray:
    """By the bits: a sign, four of exponent, three of mantissa."""
    octets = tensor.view(torch.uint8).numpy().astype(int)
    exponent, mantissa = octets >> 3 & 15, octets & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10))
    return np.where(octets >> 7 == 1, -size, size)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
_BELOW = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0)
_ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = np.array([*_BELOW, *_ABOVE], dtype=np.float32)


def bnb_4bit(
    rng: np.random.Generator, n: int, k: int, *, nested: bool, size: int = 64
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """nf4: the first of two codes is the high one."""
    codes = rng.integers(0, 16, n * k + n * k % 2)
    count = -(-n * k // size)
    state = {"quant_type": "nf4", "blocksize": size, "dtype": "bfloat16", "shape": [n, k]}
    tensors = {"weight": torch.from_numpy((codes[::2] << 4 | codes[1::2]).astype(np.uint8)).unsqueeze(1)}
    if nested:
        inner = rng.integers(0, 256, count)
        table = np.linspace(-1, 1, 256, dtype=np.float32)
        outer = rng.uniform(0.01, 0.02, -(-count // 256)).astype(np.float32)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
        tensors |= {
            "weight.absmax": torch.from_numpy(inner.astype(np.uint8)),
            "weight.nested_absmax": torch.from_numpy(outer),
            "weight.nested_quant_map": torch.from_numpy(table),
        }
        largest = table[inner].astype(np.float64) * outer[np.arange(count) // 256] + 0.05
    else:
        largest = rng.uniform(0.01, 0.1, count).astype(np.float32).astype(np.float64)
        tensors["weight.absmax"] = torch.from_numpy(largest.astype(np.float32))
    tensors["weight.quant_map"] = torch.from_numpy(NF4)
    text = np.frombuffer(json.dumps(state).encode(), dtype=np.uint8).copy()
    tensors["weight.quant_state.bitsandbytes__nf4"] = torch.from_numpy(text)
    flat = NF4[codes[: n * k]].astype(np.float64) * largest[np.arange(n * k) // size]
    return tensors, flat.reshape(n, k)


def mxfp4(rng: np.random.Generator, *shape: int, lowest: int = 110) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Blocks (..., groups, 16), exponents (..., groups), values (..., 32 groups): the even k low."""
    codes = rng.integers(0, 16, (*shape, 32))
    exponents = rng.integers(lowest, lowest + 20, shape)
    blocks = torch.from_numpy((codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8))
    values = E2M1[codes] * 2.0 ** (exponents[..., None] - 127)
    return blocks, torch.from_numpy(exponents.astype(np.uint8)), values.reshape(*shape[:-1], -1)
