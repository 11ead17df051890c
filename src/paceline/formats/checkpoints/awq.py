"""AWQ as `gemm` lays it out: codes of 4 bits packed along N, the columns of a word interleaved; zeros as they are."""

from __future__ import annotations

import numpy as np

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array
from paceline.formats.checkpoints.found import FLOATS, Settings, expect, matrix_shape
from paceline.formats.checkpoints.grouping import even_groups
from paceline.formats.checkpoints.rows import Groups, floats
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
    expect(tensors, f"{module}.scales", FLOATS, (count, words * _COLUMNS))
    qweight = tensors[f"{module}.qweight"].numpy()

    def codes(rows: slice) -> Array:
        first = rows.start // _COLUMNS
        whole = _columns(qweight[:, first : -(-rows.stop // _COLUMNS)])
        return whole[rows.start - first * _COLUMNS : rows.stop - first * _COLUMNS]

    group_of, _ = even_groups(f"{module}.scales", k, size, count)
    zeros = _columns(tensors[f"{module}.qzeros"].numpy()).astype(np.int32)
    return Groups(codes, bits, group_of, floats(tensors[f"{module}.scales"]).T, zeros)


def _columns(words: Array) -> Array:
    """Words (n, w) as codes of their columns, (8 w, n) uint8."""
    octets = np.ascontiguousarray(words.T, dtype="<i4").view(np.uint8).reshape(words.shape[1], -1, 4)
    out = np.empty((words.shape[1], _COLUMNS, len(words)), dtype=np.uint8)
    for column, nibble in enumerate(_NIBBLE_OF):
        np.bitwise_and(octets[..., nibble // 2] >> nibble % 2 * 4, 15, out=out[:, column])
    return out.reshape(-1, len(words))
