"""AWQ as `gemm` lays it out: codes of 4 bits packed along N, the columns of a word interleaved; zeros as they are."""

from __future__ import annotations

import torch

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import unpacked
from paceline.formats.checkpoints.found import Settings, expect, matrix_shape
from paceline.formats.checkpoints.gptq import SCALES
from paceline.formats.checkpoints.grouping import even_groups
from paceline.formats.checkpoints.rows import Groups
from paceline.formats.checkpoints.tensors import Tensors

# Nibble i of a word is column (0 2 4 6 1 3 5 7)[i]: column j is nibble _NIBBLE_OF[j].
_NIBBLE_OF = [0, 4, 1, 5, 2, 6, 3, 7]
_COLUMNS = 8
_GEMM = ("gemm", "exllama", "ipex")  # the last two compute otherwise, on the same tensors


def check(settings: Settings) -> None:
    """Refuse what is laid out otherwise.

    Raises:
        ModelError: it is.
    """
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if version not in _GEMM:
        raise ModelError(f"AWQ's version is {version!r}, which is laid out otherwise; allowed: {', '.join(_GEMM)}")


def groups(tensors: Tensors, module: str, bits: int, settings: Settings) -> Groups:
    """A linear: `qweight` (K, N / 8), `qzeros` (groups, N / 8), `scales` (groups, N).

    Raises:
        ModelError: the tensors do not fit each other.
    """
    if bits != 4:
        raise ModelError(f"AWQ with {bits} bits; allowed: 4")
    k, words = matrix_shape(tensors, f"{module}.qweight", ("I32",))
    size = k if settings["group_size"] == -1 else settings["group_size"]
    count = -(-k // size)
    expect(tensors, f"{module}.qzeros", ("I32",), (count, words))
    expect(tensors, f"{module}.scales", SCALES, (count, words * _COLUMNS))
    qweight = tensors[f"{module}.qweight"]

    def codes(rows: slice) -> torch.Tensor:
        first = rows.start // _COLUMNS
        columns = _columns(qweight[:, first : -(-rows.stop // _COLUMNS)])
        return columns[:, rows.start - first * _COLUMNS : rows.stop - first * _COLUMNS].T

    group_of, _ = even_groups(f"{module}.scales", k, size, count)
    zeros = _columns(tensors[f"{module}.qzeros"]).T.int()
    return Groups(codes, bits, group_of, tensors[f"{module}.scales"].T, zeros)


def _columns(words: torch.Tensor) -> torch.Tensor:
    """Words (n, w) as codes in the order of columns, (n, 8 w) uint8."""
    nibbles = unpacked(words, 4, words.shape[1] * _COLUMNS).view(len(words), -1, _COLUMNS)
    return nibbles[..., _NIBBLE_OF].reshape(len(words), -1)
