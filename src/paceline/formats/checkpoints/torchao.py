"""torchao: tensors of a subclass, taken apart; the files' metadata say of which. Those with a plain layout are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from paceline.errors import ModelError
from paceline.formats.checkpoints import fp8
from paceline.formats.checkpoints.bits import Array, fields
from paceline.formats.checkpoints.found import FLOATS, Found, Settings, Source, expect, matrix_shape
from paceline.formats.checkpoints.grouping import even_groups
from paceline.formats.checkpoints.rows import Groups, Values, floats
from paceline.formats.checkpoints.tensors import Tensors

_PARTS = ("qdata", "scale", "zero_point", "act_scale", "act_pre_scale", "scale_and_zero", "per_tensor_scale")
_MIDDLE = 128


class _Parameter(NamedTuple):
    """Where the parts of a parameter lie: `model.layers.0.mlp.up_proj._weight_qdata`."""

    name: str
    prefix: str
    attributes: Mapping[str, Any]

    def part(self, word: str) -> str:
        return self.prefix + word


def find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """Parameters whose metadata name a subclass.

    Raises:
        ModelError: the metadata are none of torchao's.
    """
    if "tensor_names" not in tensors.metadata:
        raise ModelError(f"{tensors.folder}: the files' metadata are not torchao's; allowed: its safetensors format")
    for name, text in tensors.metadata.items():
        kind, attributes = _described(name, text)
        if kind and kind != "Tensor":
            module, _, word = name.rpartition(".")
            parameter = _Parameter(name, f"{module}._{word}_", attributes)
            parts = tuple(part for part in map(parameter.part, _PARTS) if part in tensors)
            yield Found(name, parts, partial(_read, tensors, kind, parameter))


def _described(name: str, text: str) -> tuple[str, Mapping[str, Any]]:
    """The subclass and the attributes of a parameter; no subclass for metadata of other things."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return "", {}
    if not isinstance(data, dict) or "_type" not in data:
        return "", {}
    attributes = data.get("_data")
    return str(data["_type"]), attributes if isinstance(attributes, dict) else {}


def _read(tensors: Tensors, kind: str, parameter: _Parameter) -> Source:
    if kind not in _READERS:
        raise ModelError(f"{parameter.name} is torchao's {kind}, not laid out plainly; allowed: {', '.join(_READERS)}")
    if parameter.part("act_pre_scale") in tensors:
        raise ModelError(f"{parameter.name} scales what it is multiplied with; allowed: scales of weights alone")
    return _READERS[kind](tensors, parameter)


def _int8(tensors: Tensors, parameter: _Parameter) -> Source:
    """`qdata` (N, K) int8, whatever the number of bits; `scale` and perhaps `zero_point`, (N, groups) in some shape."""
    name, zero_point = parameter.part("qdata"), parameter.part("zero_point")
    n, k = matrix_shape(tensors, name, ("I8",))
    size = _group_size(parameter, k)
    scales = floats(_table(tensors, parameter.part("scale"), FLOATS, (n, -(-k // size))))
    zeros = np.full((1, 1), _MIDDLE, dtype=np.int32)
    if zero_point in tensors:
        zeros = _table(tensors, zero_point, ("I8", "I32", "I64"), (n, -(-k // size))).int().numpy() + _MIDDLE
    group_of, _ = even_groups(parameter.part("scale"), k, size, scales.shape[1])
    octets = tensors[name].view(torch.uint8).numpy()
    groups = Groups(lambda rows: octets[rows] ^ 0x80, 8, group_of, scales, zeros)
    return Source("torchao int8", groups)


def _int4(tensors: Tensors, parameter: _Parameter) -> Source:
    """`qdata` (N, K / 2), signed, the even k low; `scale` and `zero_point` (groups, N) floats: scale code + zero."""
    name = parameter.part("qdata")
    n, half = matrix_shape(tensors, name, ("I8", "U8"))
    size = _group_size(parameter, 2 * half)
    shape = (-(-2 * half // size), n)
    for word in ("scale", "zero_point"):
        expect(tensors, parameter.part(word), FLOATS, shape)
    octets = tensors[name].view(torch.uint8).numpy()
    scales, zeros = (floats(tensors[parameter.part(word)]).T for word in ("scale", "zero_point"))
    group_of, _ = even_groups(parameter.part("scale"), 2 * half, size, len(scales.T))

    def values(rows: slice) -> Array:
        codes = (fields(octets[rows], (0, 4), 4) ^ 8).astype(np.float32) - 8
        scaled: Array = codes * scales[rows].take(group_of, axis=1) + zeros[rows].take(group_of, axis=1)
        return scaled

    return Source("torchao int4", Values(values, (n, 2 * half)))


def _float8(tensors: Tensors, parameter: _Parameter) -> Source:
    """`qdata` of eight-bit floats, `scale` a grid."""
    block = parameter.attributes.get("block_size")
    size = [x for x in block if isinstance(x, int) and x > 0] if isinstance(block, list) else []
    *_, rows, columns = [1, 1, *size]
    return fp8.read(tensors, parameter.part("qdata"), parameter.part("scale"), (rows, columns))


_Reader = Callable[[Tensors, _Parameter], Source]
_READERS: dict[str, _Reader] = {
    "Int8Tensor": _int8,
    "IntxUnpackedToInt8Tensor": _int8,
    "Int4Tensor": _int4,
    "Float8Tensor": _float8,
}


def _group_size(parameter: _Parameter, k: int) -> int:
    """Weights of a group, of a `block_size` (1, size)."""
    block = parameter.attributes.get("block_size") or [1, k]
    if not isinstance(block, list) or len(block) != 2 or block[0] != 1 or not isinstance(block[1], int) or block[1] < 1:
        raise ModelError(f"{parameter.name}: block_size is {block!r}; allowed: 1 and a positive number")
    return block[1]


def _table(tensors: Tensors, name: str, dtypes: tuple[str, ...], shape: tuple[int, int]) -> torch.Tensor:
    """Numbers of groups, (N, groups), of one dimension if there is one for each row."""
    entry = tensors.entry(name)
    expect(tensors, name, dtypes, shape[:1] if len(entry.shape) == 1 and shape[1] == 1 else shape)
    return tensors[name].reshape(shape)
