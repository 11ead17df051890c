"""compressed-tensors: codes in words, as bytes, or as floats of eight bits; one folder may hold them all.

What a linear's tensors are says which of them it is; its group of the configuration says how many bits words hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from paceline.errors import ModelError
from paceline.formats.checkpoints import fp8, mxfp4
from paceline.formats.checkpoints.bits import Array, num_words, unpacked
from paceline.formats.checkpoints.found import (
    FLOATS,
    Found,
    Settings,
    Source,
    expect,
    matrix_shape,
    number,
    parts_of,
    table,
)
from paceline.formats.checkpoints.grouping import Grouping, even_groups, listed_groups
from paceline.formats.checkpoints.rows import Groups, floats
from paceline.formats.checkpoints.tensors import Tensors

_PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
_WIDTHS = (2, 4, 8)  # words of 3 bits are laid out in two ways


def find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """Linears with a `weight_scale`.

    Raises:
        ModelError: the weights are sparse.
    """
    sparsity = table(settings, "sparsity_config")
    if sparsity.get("format", "dense") != "dense":
        raise ModelError(f"compressed-tensors with sparsity {sparsity['format']!r}; allowed: dense")
    for module in tensors.with_suffix("weight_scale"):
        parts = parts_of(tensors, module, _PARTS)
        yield Found(f"{module}.weight", parts, partial(_read, tensors, module, settings))


def _read(tensors: Tensors, module: str, settings: Settings) -> Source:
    part = "weight_packed" if f"{module}.weight_packed" in tensors else "weight"
    dtype = tensors.entry(f"{module}.{part}").dtype
    if (part, dtype) not in _READERS:
        known = " or ".join(f"{part} {dtype}" for part, dtype in _READERS)
        raise ModelError(f"{module}.{part} is {dtype} in a layout that is not known; allowed: {known}")
    return _READERS[part, dtype](tensors, module, _scheme(settings, module))


def _scheme(settings: Settings, module: str) -> Mapping[str, Any]:
    """What the configuration says of a linear's weights: a group that names it goes before one of all linears."""
    names = table(settings, "config_groups")
    groups = [table(names, name) for name in names]
    for is_meant in (_is_named, _is_of_class):
        for group in groups:
            targets = group.get("targets")
            if isinstance(targets, list) and any(is_meant(str(target), module) for target in targets):
                return table(group, "weights")
    raise ModelError(f"{module} has quantised tensors, but no config_group has it for a target")


def _is_named(target: str, module: str) -> bool:
    try:
        return target == module or (target.startswith("re:") and bool(re.match(target[3:], module)))
    except re.error as error:
        raise ModelError(f"the target {target!r} is no pattern: {error}") from error


def _is_of_class(target: str, module: str) -> bool:
    """A class's name, which only the model could tell: embeddings are called so, everything else is a linear."""
    return target == ("Embedding" if "embed" in module.rsplit(".", 1)[-1] else "Linear")


def _packed(tensors: Tensors, module: str, scheme: Mapping[str, Any]) -> Source:
    """`weight_packed` (N, words), the codes of a row one after the other; half of their range is added to them."""
    bits = number(scheme, "num_bits", 4, lambda n: n in _WIDTHS, ", ".join(map(str, _WIDTHS)))
    n, k = _shape(tensors, module)
    expect(tensors, f"{module}.weight_packed", ("I32",), (n, num_words(k, bits)))
    words = tensors[f"{module}.weight_packed"].numpy()
    kind = f"compressed-tensors int{bits}"
    return _grouped(tensors, module, kind, (n, k), bits, scheme, lambda rows: unpacked(words[rows], bits, k))


def _bytes(tensors: Tensors, module: str, scheme: Mapping[str, Any]) -> Source:
    """`weight` (N, K) int8."""
    shape = matrix_shape(tensors, f"{module}.weight", ("I8",))
    octets = tensors[f"{module}.weight"].numpy().view(np.uint8)
    kind = "compressed-tensors int8"
    return _grouped(tensors, module, kind, shape, 8, scheme, lambda rows: octets[rows] ^ 0x80)


def _floats(tensors: Tensors, module: str, scheme: Mapping[str, Any]) -> Source:
    block, size = scheme.get("block_structure"), scheme.get("group_size")
    rows, columns = 128, 128
    if isinstance(block, list) and len(block) == 2 and all(isinstance(x, int) and x > 0 for x in block):
        rows, columns = block
    elif isinstance(size, int) and size > 0:
        rows, columns = 1, size
    name = f"{module}.weight"
    return fp8.read(tensors, name, f"{name}_scale", (rows, columns))


def _fp4(tensors: Tensors, module: str, scheme: Mapping[str, Any]) -> Source:
    """MXFP4 alone: NVFP4 has a scale more."""
    n, half = matrix_shape(tensors, f"{module}.weight_packed", ("U8",))
    expect(tensors, f"{module}.weight_scale", ("U8",), (n, half * 2 // 32))
    octets, exponents = (tensors[f"{module}.weight_{word}"].numpy() for word in ("packed", "scale"))
    return mxfp4.levels(f"{module}.weight", octets, exponents)


_Reader = Callable[[Tensors, str, Mapping[str, Any]], Source]
_READERS: dict[tuple[str, str], _Reader] = {
    ("weight_packed", "I32"): _packed,
    ("weight_packed", "U8"): _fp4,
    ("weight", "I8"): _bytes,
    ("weight", "F8_E4M3"): _floats,
}


def _shape(tensors: Tensors, module: str) -> tuple[int, int]:
    """N and K, as a tensor of two numbers says them."""
    name = f"{module}.weight_shape"
    expect(tensors, name, ("I64", "I32"), (2,))
    n, k = (int(x) for x in tensors[name])
    if not 0 < n < 1 << 31 or not 0 < k < 1 << 31:
        raise ModelError(f"{name} says {n} x {k}; allowed: two positive numbers")
    return n, k


def _grouped(
    tensors: Tensors,
    module: str,
    kind: str,
    shape: tuple[int, int],
    bits: int,
    scheme: Mapping[str, Any],
    codes: Callable[[slice], Array],
) -> Source:
    """Codes with `weight_scale` (N, groups) and, if they are not symmetric, `weight_zero_point`."""
    n, k = shape
    scales = _scales(tensors, f"{module}.weight_scale", n)
    count = scales.shape[1]
    group_of, order = _grouping(tensors, module, k, count, scheme)
    zeros = _zeros(tensors, f"{module}.weight_zero_point", bits, (n, count))
    if order is None:
        groups = Groups(codes, bits, group_of, scales, zeros)
    else:
        groups = Groups(lambda rows: codes(rows).take(order, axis=1), bits, group_of, scales, zeros, order)
    return Source(kind, groups)


def _scales(tensors: Tensors, name: str, n: int) -> Array:
    """(N, groups): of a tensor one scale for all, of a channel one for each row."""
    entry = tensors.entry(name)
    scales = tensors[name]
    if scales.numel() == 1:
        scales = scales.reshape(1, 1).expand(n, 1)
    if entry.dtype not in FLOATS or scales.ndim != 2 or len(scales) != n or not scales.shape[1]:
        raise ModelError(f"{name} is {entry.dtype} {list(entry.shape)}; allowed: floats ({n}, groups)")
    return floats(scales)


def _grouping(tensors: Tensors, module: str, k: int, count: int, scheme: Mapping[str, Any]) -> Grouping:
    name = f"{module}.weight_g_idx"
    if name in tensors and count > 1 and not bool((tensors[name] == -1).any()):  # -1: not set
        expect(tensors, name, ("I32", "I64"), (k,))
        return listed_groups(name, tensors[name].numpy(), count)
    size = scheme.get("group_size")
    size = size if isinstance(size, int) and size > 0 and count > 1 else k
    return even_groups(f"{module}.weight_scale", k, size, count)


def _zeros(tensors: Tensors, name: str, bits: int, shape: tuple[int, int]) -> Array:
    """Zeros of codes that half of their range was added to: packed along N as the codes are, or int8 as they are."""
    middle = 1 << bits - 1
    if name not in tensors:
        return np.full((1, 1), middle, dtype=np.int32)
    n, count = shape
    entry, zeros = tensors.entry(name), tensors[name]
    table: Array = zeros.numpy()
    if entry.dtype == "I32":
        expect(tensors, name, ("I32",), (num_words(n, bits), count))
        table = unpacked(table.T, bits, n).T
        return table.astype(np.int32)
    expect(tensors, name, ("I8",), entry.shape if zeros.numel() == 1 else shape)
    table = table.reshape((1, 1) if zeros.numel() == 1 else shape).astype(np.int32) + np.int32(middle)
    return table
