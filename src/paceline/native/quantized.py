"""Quantised weights for the kernels: blocks packed into panels, multiplied by inputs in int8 groups of 32."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from paceline.native.layout import PANEL, Kind, Op
from paceline.native.library import Library
from paceline.native.ops import FLOATS, make, require, run

_SUPER = 256  # features of a super-block; inputs are padded to whole ones
_INPUT_BYTES = 48  # of a group of 32 features: see csrc/quantized.h
_LINE = 64


class Unit(NamedTuple):
    """Bytes of 32 columns, and their features."""

    num_bytes: int
    features: int


# Bytes of a packed unit and its features, by kind of block: UNIT_BYTES of csrc/quantized.h.
UNITS = tuple(
    Unit(*unit)
    for unit in ((1088, 32), (1152, 32), (576, 32), (640, 32), (640, 32), (4736, 256), (5760, 256), (6720, 256))
)


class Blocks(Protocol):
    """A weight (N, K) in rows of blocks: see `paceline.formats.blocks.BlockRows`."""

    @property
    def type(self) -> int:
        """The kind of blocks, by its number."""

    @property
    def data(self) -> torch.Tensor:
        """(N, bytes of a row) uint8."""

    @property
    def k(self) -> int:
        """K."""

    @property
    def order(self) -> torch.Tensor | None:
        """(K,) the feature that each k is multiplied with; None: its own."""


class QuantizedWeight:
    """A weight (N, K) in codes of 4 to 8 bits, in panels of 32 columns: the only copy that a kernel needs."""

    dtype = torch.float32  # of inputs and outputs: rounding between linears would cost as much as 8 bits do

    def __init__(self, library: Library, blocks: Blocks) -> None:
        self.library = library
        self.block, self.k, self.num_columns = int(blocks.type), blocks.k, len(blocks.data)
        self.order = None if blocks.order is None else blocks.order.to(torch.int64).contiguous()
        require(self.order is None or self.order.shape == (self.k,), "an order of as many features as the weight has")
        unit_bytes, features = UNITS[self.block]
        panels = -(-self.num_columns // PANEL)
        self.data = torch.empty(panels * -(-self.k // features) * unit_bytes, dtype=torch.uint8)
        library.advise(self.data)
        rows = blocks.data if blocks.data.stride(1) == 1 else blocks.data.contiguous()
        run(library, [self._op(Kind.PACK_QUANTIZED, self.data, rows, rows=1)])

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self.data.numel()

    @property
    def input_bytes(self) -> int:
        """Bytes of a row of inputs, as `quantize` writes it."""
        return -(-(-(-self.k // _SUPER) * _SUPER // 32 * _INPUT_BYTES) // _LINE) * _LINE + _LINE

    def quantize(self, out: torch.Tensor, x: torch.Tensor, order: torch.Tensor | None = None) -> Op:
        """`out` (M, `input_bytes`) uint8 = `x` (M, K) in groups of 32: int8 and a float32 scale."""
        require(x.ndim == 2 and x.shape[1] == self.k and x.dtype in FLOATS, f"x is {tuple(x.shape)}, {x.dtype}")
        require(x.stride(1) == 1, "rows must be contiguous")
        self._check_inputs(out, len(x))
        return make(Kind.QUANTIZE, (len(x), self.num_columns, self.k), [out, x, order])

    def linear(self, out: torch.Tensor, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> Op:
        """`out` (M, N) = quantised inputs times the weight, plus `bias` (N); rows contiguous."""
        self._check_inputs(inputs, len(out))
        require(out.ndim == 2 and out.shape[1] == self.num_columns, f"out is {tuple(out.shape)}")
        require(out.dtype in FLOATS and out.stride(1) == 1, f"out is {out.dtype}; rows must be contiguous")
        if bias is not None:
            is_right = bias.shape == (self.num_columns,) and bias.is_contiguous() and bias.dtype in FLOATS
            require(is_right, f"bias is {tuple(bias.shape)}, {bias.dtype}")
        return self._op(Kind.LINEAR_QUANTIZED, out, inputs, self.data, bias, rows=len(out))

    def rows(self, out: torch.Tensor, tokens: torch.Tensor) -> Op:
        """`out` (M, K) = values of the weight's rows by `tokens` (M,) int64; one outside [0, N) gives the nearest."""
        require(self.num_columns > 0, "a weight without rows")
        require(tokens.ndim == 1 and tokens.dtype == torch.int64, f"tokens are {tuple(tokens.shape)}, {tokens.dtype}")
        require(out.shape == (len(tokens), self.k) and out.dtype in FLOATS, f"out is {tuple(out.shape)}")
        require(out.stride(1) == 1, "rows must be contiguous")
        return self._op(Kind.EMBED_QUANTIZED, out, tokens, self.data, rows=len(tokens))

    def values(self, first: int = 0, end: int | None = None) -> torch.Tensor:
        """(rows, K) float32: what rows from `first` up to `end` stand for."""
        tokens = torch.arange(first, min(self.num_columns, self.num_columns if end is None else end))
        out = torch.empty(len(tokens), self.k)
        run(self.library, [self.rows(out, tokens)])
        return out

    def _check_inputs(self, inputs: torch.Tensor, rows: int) -> None:
        require(inputs.shape == (rows, self.input_bytes), f"inputs are {tuple(inputs.shape)}")
        require(inputs.dtype == torch.uint8 and inputs.stride(1) == 1, f"inputs are {inputs.dtype}")

    def _op(self, kind: Kind, *tensors: torch.Tensor | None, rows: int) -> Op:
        op = make(kind, (rows, self.num_columns, self.k), tensors)
        op.function = self.block
        return op
