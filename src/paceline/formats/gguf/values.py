"""From a tensor's bytes to a parameter: blocks for a kernel, or floats; what a file's writer changed is undone.

A value in blocks is always `BlockRows` of (out, in) rows: GPT-2's `Conv1D` parameters too, although transformers holds
those (in, out), and experts as (E * out, in). Floats have the shape of the parameter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import PreTrainedConfig

from paceline.errors import ModelError
from paceline.formats.blocks import BlockRows
from paceline.formats.gguf.header import TensorInfo
from paceline.formats.gguf.kinds import NAMED
from paceline.formats.gguf.lossless import CODES, q3_k_to_q6_k, to_eight_bits
from paceline.formats.gguf.names import NAMINGS, Naming
from paceline.formats.gguf.nearest import to_nearest
from paceline.formats.gguf.plan import Planned
from paceline.formats.gguf.reader import Reader


class Converted(NamedTuple):
    """Blocks that a kernel computes with."""

    rows: BlockRows
    is_exact: bool


class Values:
    """The values of a file's parameters, one at a time."""

    def __init__(self, reader: Reader, architecture: str, config: PreTrainedConfig) -> None:
        self._reader = reader
        self._naming: Naming = NAMINGS[architecture]
        self._heads = {
            "attn_q": config.num_attention_heads,
            "attn_k": getattr(config, "num_key_value_heads", config.num_attention_heads),
        }

    def read(self, planned: Planned) -> tuple[BlockRows | torch.Tensor, bool]:
        """A parameter's value, and whether it is exactly the file's.

        Raises:
            ModelError: a type that needs the `gguf` package, which is not installed.
        """
        if len(planned.tensors) > 1:
            return self._experts(planned)
        (tensor,) = planned.tensors
        if tensor.kind.dtype is not None:
            return self._floats(planned, tensor), True
        data = self._ordered(planned.part, self._rows(tensor))
        return converted(tensor.kind.name, data, tensor.shape[-1])

    def _rows(self, tensor: TensorInfo) -> torch.Tensor:
        """(rows, bytes of a row) uint8, where they lie."""
        return self._reader.bytes_of(tensor.name).view(tensor.num_weights // tensor.shape[-1], -1)

    def _floats(self, planned: Planned, tensor: TensorInfo) -> torch.Tensor:
        value = self._ordered(planned.part, self._reader.floats(tensor.name))
        if self._naming.shifted and planned.part.endswith("norm"):
            return value.float() - 1.0
        return value.t() if planned.part in self._naming.transposed and value.ndim == 2 else value

    def _ordered(self, part: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows in transformers' order: of a head first all i, then all i + D/2, which are turned together."""
        if part not in self._naming.permuted:
            return rows
        pairs = rows.reshape(self._heads[part], -1, 2, *rows.shape[1:])
        return pairs.transpose(1, 2).reshape(rows.shape)

    def _experts(self, planned: Planned) -> tuple[BlockRows | torch.Tensor, bool]:
        """Gate and up of each expert in one: (E, 2 I, in) floats, or (E * 2 I, in) rows of blocks."""
        experts = planned.tensors[0].shape[0]
        if all(tensor.kind.dtype is not None for tensor in planned.tensors):
            return torch.cat([self._reader.floats(tensor.name) for tensor in planned.tensors], dim=1), True
        if len({tensor.kind for tensor in planned.tensors}) > 1:
            raise ModelError(f"{planned.name} is of {planned.stored_as}; allowed: gate and up of one type")
        kind, k = planned.tensors[0].kind, planned.tensors[0].shape[-1]
        data = torch.cat(
            [self._rows(tensor).view(experts, -1, self._row_bytes(tensor)) for tensor in planned.tensors], 1
        )
        return converted(kind.name, data.flatten(0, 1), k)

    @staticmethod
    def _row_bytes(tensor: TensorInfo) -> int:
        return tensor.shape[-1] // tensor.kind.weights * tensor.kind.num_bytes


def converted(kind: str, data: torch.Tensor, k: int) -> Converted:
    """Rows (N, bytes) of a kind, as they are or in blocks that a kernel computes with."""
    as_it_is = NAMED[kind].as_it_is
    if as_it_is is not None:
        return Converted(BlockRows(as_it_is, data, k), True)
    if kind in CODES:
        return Converted(to_eight_bits(kind, data, k), True)
    if kind == "Q3_K":
        return Converted(q3_k_to_q6_k(data, k), True)
    return Converted(to_nearest(kind, data, k), False)
