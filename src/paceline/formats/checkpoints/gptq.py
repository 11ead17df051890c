"""GPTQ: codes packed along K, zeros along N, and perhaps an order in which K was quantised.

Two conventions share one label: version 1 stores zeros less one, version 2 as they are, and labels lie. Where all zeros
of a symmetric linear are the middle of the codes, or one less, that tells; else the label does.
"""

from __future__ import annotations

import torch

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import num_words, unpacked
from paceline.formats.checkpoints.found import Settings, expect
from paceline.formats.checkpoints.rows import Groups, groups_of
from paceline.formats.checkpoints.tensors import Tensors

_SUBTRACTED = {"gptq": 1, "gptq_v2": 0}
SCALES = ("F16", "BF16", "F32")


def check(settings: Settings) -> None:
    """Refuse what is laid out otherwise.

    Raises:
        ModelError: it is.
    """
    _subtracted(settings)


def groups(tensors: Tensors, module: str, bits: int, settings: Settings) -> Groups:
    """A linear: `qweight` (words, N), `qzeros` (groups, words), `scales` (groups, N), `g_idx` (K,).

    Raises:
        ModelError: the tensors do not fit each other.
    """
    words, columns = tensors.entry(f"{module}.qweight").shape
    count = len(tensors.entry(f"{module}.scales").shape) and tensors.entry(f"{module}.scales").shape[0]
    k = _k(tensors, module, words, bits)
    expect(tensors, f"{module}.qweight", ("I32",), (num_words(k, bits), columns))
    expect(tensors, f"{module}.qzeros", ("I32",), (count, num_words(columns, bits)))
    expect(tensors, f"{module}.scales", SCALES, (count, columns))
    group_of, order = _grouping(tensors, module, k, count, settings)
    qweight = tensors[f"{module}.qweight"]

    def codes(rows: slice) -> torch.Tensor:
        natural = unpacked(qweight[:, rows].T, bits, k)
        return natural if order is None else natural.index_select(1, order)

    zeros = _zeros(unpacked(tensors[f"{module}.qzeros"], bits, columns).T, bits, settings)
    return Groups(codes, bits, group_of, tensors[f"{module}.scales"].T, zeros, order)


def _k(tensors: Tensors, module: str, words: int, bits: int) -> int:
    """K, as `g_idx` says it, or as many as the words hold."""
    name = f"{module}.g_idx"
    if name not in tensors:
        return words * 32 // bits
    shape = tensors.entry(name).shape
    return shape[0] if len(shape) == 1 else 0


def _grouping(
    tensors: Tensors, module: str, k: int, count: int, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The group of each code, and the order that sorts codes by group, if they are not sorted."""
    if f"{module}.g_idx" not in tensors:
        size = settings["group_size"]
        size = k if size == -1 else size
        if -(-k // size) != count:
            raise ModelError(f"{module}.scales has {count} groups; allowed: {-(-k // size)}, of {size} along K = {k}")
        return groups_of(k, size), None
    expect(tensors, f"{module}.g_idx", ("I32", "I64"), (k,))
    group_of = tensors[f"{module}.g_idx"].long()
    low, high = (int(x) for x in group_of.aminmax())
    if low < 0 or high >= count:
        raise ModelError(f"{module}.g_idx has numbers from {low} to {high}; allowed: 0 to {count - 1}")
    if bool((group_of[1:] >= group_of[:-1]).all()):
        return group_of, None
    order = group_of.argsort(stable=True)
    return group_of[order], order


def _zeros(packed: torch.Tensor, bits: int, settings: Settings) -> torch.Tensor:
    """Zeros, (N, groups) int32, or (1, 1) if they are all the middle of the codes."""
    middle = 1 << bits - 1
    low, high = (int(x) for x in packed.aminmax())
    if settings["sym"] and low == high and low in (middle - 1, middle):
        return torch.full((1, 1), middle, dtype=torch.int32)
    # Zero 0 less one is stored as the highest code.
    return packed.int() + _subtracted(settings) & (1 << bits) - 1


def _subtracted(settings: Settings) -> int:
    name = settings["checkpoint_format"]
    if name not in _SUBTRACTED:
        raise ModelError(f"GPTQ's checkpoint_format is {name!r}; allowed: {' or '.join(_SUBTRACTED)}")
    return _SUBTRACTED[name]
