"""bitsandbytes: int8 rows with their largest value, and 4-bit codes of a table of floats, which have no kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array, fields
from paceline.formats.checkpoints.found import FLOATS, Found, Settings, Source, expect, matrix_shape, number, parts_of
from paceline.formats.checkpoints.rows import Groups, Values, floats
from paceline.formats.checkpoints.tensors import Tensors

_STATE = ".weight.quant_state.bitsandbytes__"
_PARTS = ("weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map")
_ZERO = 128


def find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """Linears with `SCB`, and those with the state of a 4-bit quantiser."""
    for module in tensors.with_suffix("SCB"):
        parts = parts_of(tensors, module, ("weight", "SCB", "weight_format"))
        yield Found(f"{module}.weight", parts, partial(_read_int8, tensors, module))
    for name in list(tensors):
        if _STATE in name:
            module, kind = name.split(_STATE)
            parts = (*parts_of(tensors, module, _PARTS), name)
            yield Found(f"{module}.weight", parts, partial(_read_4bit, tensors, module, kind))


def _read_int8(tensors: Tensors, module: str) -> Source:
    """`weight` (N, K) int8: its values are weight SCB / 127, the scale rounded to float32."""
    shape = matrix_shape(tensors, f"{module}.weight", ("I8",))
    expect(tensors, f"{module}.SCB", FLOATS, shape[:1])
    layout = f"{module}.weight_format"
    if layout in tensors and bool(tensors[layout].any()):
        raise ModelError(f"{layout} is {tensors[layout].tolist()}, laid out for a GPU; allowed: 0, rows")
    octets = tensors[f"{module}.weight"].numpy().view(np.uint8)
    scales = floats(tensors[f"{module}.SCB"])[:, None] / np.float32(127)
    zero = np.full((1, 1), _ZERO, dtype=np.int32)
    groups = Groups(lambda rows: octets[rows] ^ 0x80, 8, np.zeros(shape[1], dtype=np.int64), scales, zero)
    return Source("bitsandbytes int8", groups)


def _read_4bit(tensors: Tensors, module: str, kind: str) -> Source:
    """`weight` (N K / 2, 1), the first of two codes in the high nibble: table[code] times the largest of its block."""
    name = f"{module}.weight"
    state = _state(tensors, f"{module}{_STATE}{kind}")
    n, k = _shape(name, state)
    size = number(state, "blocksize", 64, lambda x: x > 0, "a positive integer")
    octets = tensors[name].reshape(-1).view(torch.uint8).numpy()
    if len(octets) != -(-n * k // 2):
        raise ModelError(f"{name} has {len(octets)} bytes; allowed: {-(-n * k // 2)}, for {n} x {k}")
    table, largest = _table(tensors, f"{name}.quant_map", 16), _largest(tensors, name, state, -(-n * k // size))

    def values(rows: slice) -> Array:
        start, stop = rows.start * k, rows.stop * k
        pairs = octets[start // 2 : -(-stop // 2)]
        codes = fields(pairs[None], (4, 0), 4)[0, start % 2 :][: stop - start]
        scaled: Array = table[codes] * largest[np.arange(start, stop) // size]
        return scaled.reshape(-1, k)

    return Source(f"bitsandbytes {kind}", Values(values, (n, k)))


def _state(tensors: Tensors, name: str) -> dict[str, Any]:
    """The quantiser's state: JSON in a tensor of bytes."""
    try:
        state = json.loads(bytes(tensors[name].tolist()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{name} holds no JSON: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{name} holds {type(state).__name__}; allowed: an object")
    return state


def _shape(name: str, state: dict[str, Any]) -> tuple[int, int]:
    shape = state.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(x, int) and 0 < x < 1 << 31 for x in shape):
        raise ModelError(f"{name}: its state's shape is {shape!r}; allowed: two positive integers")
    return shape[0], shape[1]


def _largest(tensors: Tensors, name: str, state: dict[str, Any], count: int) -> Array:
    """The largest value of each block, float32; they may be quantised themselves, to a table of 256."""
    if f"{name}.nested_absmax" not in tensors:
        return _table(tensors, f"{name}.absmax", count)
    expect(tensors, f"{name}.absmax", ("U8",), (count,))
    size = number(state, "nested_blocksize", 256, lambda x: x > 0, "a positive integer")
    table, outer = (
        _table(tensors, f"{name}.nested_quant_map", 256),
        _table(tensors, f"{name}.nested_absmax", -(-count // size)),
    )
    offset = state.get("nested_offset", 0.0)
    if not isinstance(offset, int | float):
        raise ModelError(f"{name}: its state's nested_offset is {offset!r}; allowed: a number")
    scaled: Array = table[tensors[f"{name}.absmax"].numpy()] * outer[np.arange(count) // size] + np.float32(offset)
    return scaled


def _table(tensors: Tensors, name: str, count: int) -> Array:
    expect(tensors, name, FLOATS, (count,))
    return floats(tensors[name])
