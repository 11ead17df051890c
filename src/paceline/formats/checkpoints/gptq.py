"""GPTQ: codes packed along K, zeros along N, and perhaps an order in which K was quantised.

Two conventions share one label: version 1 stores zeros less one, version 2 as they are, and labels lie. Where all zeros
of a symmetric linear are the middle of the codes, or one less, that tells; else the label does.
"""

from __future__ import annotations

import numpy as np

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array, num_words, unpacked
from paceline.formats.checkpoints.found import FLOATS, Settings, expect, matrix_shape
from paceline.formats.checkpoints.grouping import Grouping, even_groups, listed_groups
from paceline.formats.checkpoints.rows import Groups, floats
from paceline.formats.checkpoints.tensors import Tensors

_SUBTRACTED = {"gptq": 1, "gptq_v2": 0}


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
    words, columns = matrix_shape(tensors, f"{module}.qweight", ("I32",))
    count, _ = matrix_shape(tensors, f"{module}.scales", FLOATS)
    k = _k(tensors, module, words, bits)
    expect(tensors, f"{module}.qweight", ("I32",), (num_words(k, bits), columns))
    expect(tensors, f"{module}.qzeros", ("I32",), (count, num_words(columns, bits)))
    expect(tensors, f"{module}.scales", FLOATS, (count, columns))
    group_of, order = _grouping(tensors, module, k, count, settings)
    qweight = tensors[f"{module}.qweight"].numpy()

    def codes(rows: slice) -> Array:
        natural = unpacked(qweight[:, rows].T, bits, k)
        return natural if order is None else natural.take(order, axis=1)

    zeros = _zeros(unpacked(tensors[f"{module}.qzeros"].numpy(), bits, columns).T, bits, settings)
    return Groups(codes, bits, group_of, floats(tensors[f"{module}.scales"]).T, zeros, order)


def _k(tensors: Tensors, module: str, words: int, bits: int) -> int:
    """K, as `g_idx` says it, or as many as the words hold."""
    name = f"{module}.g_idx"
    if name not in tensors:
        return words * 32 // bits
    shape = tensors.entry(name).shape
    return shape[0] if len(shape) == 1 else 0


def _grouping(tensors: Tensors, module: str, k: int, count: int, settings: Settings) -> Grouping:
    name = f"{module}.g_idx"
    if name in tensors:
        expect(tensors, name, ("I32", "I64"), (k,))
        return listed_groups(name, tensors[name].numpy(), count)
    size = settings["group_size"]
    return even_groups(f"{module}.scales", k, k if size == -1 else size, count)


def _zeros(packed: Array, bits: int, settings: Settings) -> Array:
    """Zeros, (N, groups) int32, or (1, 1) if they are all the middle of the codes."""
    middle = 1 << bits - 1
    low, high = packed.min(), packed.max()
    if settings["sym"] and low == high and low in (middle - 1, middle):
        return np.full((1, 1), middle, dtype=np.int32)
    # Zero 0 less one is stored as the highest code.
    return packed.astype(np.int32) + _subtracted(settings) & (1 << bits) - 1


def _subtracted(settings: Settings) -> int:
    name = str(settings["checkpoint_format"])
    if name not in _SUBTRACTED:
        raise ModelError(f"GPTQ's checkpoint_format is {name!r}; allowed: {' or '.join(_SUBTRACTED)}")
    return _SUBTRACTED[name]
