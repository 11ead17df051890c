"""Every type of blocks has the values that the gguf package says it has, whatever it was re-packed into."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.gguf import nearest
from paceline.formats.gguf.kinds import KINDS, NAMED, REFUSED
from paceline.formats.gguf.lossless import CODES
from paceline.formats.gguf.values import converted

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

ROWS, BLOCKS = 3, 5
BLOCK_KINDS = [kind.name for kind in KINDS.values() if kind.dtype is None]
EXACT = [name for name in BLOCK_KINDS if NAMED[name].is_exact and NAMED[name].as_it_is is None]


def reference(kind: str, data: np.ndarray) -> np.ndarray:
    if kind == "Q1_0":  # the package does not unpack it: ggml's dequantize_row_q1_0
        blocks = data.reshape(-1, 18)
        bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
        scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
        return (scales * (2 * bits - 1)).reshape(len(data), -1)
    with np.errstate(all="ignore"):
        return quants.dequantize(data, gguf.GGMLQuantizationType[kind])


def values_of(rows: BlockRows) -> np.ndarray:
    """By the package too, but for the kind that is our own."""
    if rows.type != BlockType.Q8_F:
        return reference(rows.type.name, rows.data.numpy())
    blocks = rows.data.numpy().reshape(-1, 36)
    scales = np.ascontiguousarray(blocks[:, :4]).view(np.float32)
    return (scales * blocks[:, 4:].view(np.int8)).reshape(len(rows.data), -1)


def random_rows(kind: str, seed: int, rows: int = ROWS, blocks: int = BLOCKS, most: float = 6e4) -> np.ndarray:
    """Blocks of random bytes whose values are finite and not beyond float16."""
    generator = np.random.default_rng(seed)
    found = np.empty((0, NAMED[kind].num_bytes), np.uint8)
    while len(found) < rows * blocks:
        drawn = generator.integers(0, 256, (4 * rows * blocks, NAMED[kind].num_bytes), np.uint8)
        values = reference(kind, drawn)
        with np.errstate(invalid="ignore"):
            found = np.concatenate([found, drawn[(np.abs(values) < most).all(1)]])
    return found[: rows * blocks].reshape(rows, -1)


def make(kind: str, data: np.ndarray) -> tuple[BlockRows, bool]:
    return converted(kind, torch.from_numpy(data), data.shape[1] // NAMED[kind].num_bytes * NAMED[kind].weights)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", EXACT)
def test_repacked_blocks_have_the_same_values(kind: str, seed: int) -> None:
    data = random_rows(kind, seed)
    rows, is_exact = make(kind, data)
    assert is_exact
    assert rows.type.name in NAMED[kind].becomes.split(" or ")
    np.testing.assert_array_equal(values_of(rows), reference(kind, data))


@pytest.mark.parametrize("kind", [name for name in BLOCK_KINDS if NAMED[name].as_it_is is not None])
def test_blocks_with_a_kernel_stay_where_they_are(kind: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, (ROWS, BLOCKS * NAMED[kind].num_bytes), np.uint8)
    rows, is_exact = make(kind, data)
    assert is_exact
    assert rows.type.name == kind == NAMED[kind].becomes
    assert rows.data.data_ptr() == data.ctypes.data
    assert (rows.num_rows, rows.k) == (ROWS, BLOCKS * NAMED[kind].weights)


@pytest.mark.parametrize("kind", [name for name in BLOCK_KINDS if not NAMED[name].is_exact])
def test_others_become_the_nearest_and_say_so(kind: str) -> None:
    data = random_rows(kind, 0)
    rows, is_exact = make(kind, data)
    assert not is_exact
    assert rows.type.name == NAMED[kind].becomes == "Q8_0"
    wanted = reference(kind, data).reshape(-1, 32)
    largest = np.abs(wanted).max(1, keepdims=True)
    allowed = largest / 127 * 0.5 * (1 + 2**-9) + largest * 2**-10 + 2**-18
    assert (np.abs(values_of(rows).reshape(-1, 32) - wanted) <= allowed).all()
    assert np.abs(values_of(rows)).max() > 0


@pytest.mark.parametrize("kind", ["Q5_1", "Q2_K"])
def test_the_common_ones_are_unpacked_without_the_package(kind: str) -> None:
    data = random_rows(kind, 1)
    found = nearest._OWN[kind](torch.from_numpy(data.reshape(-1, NAMED[kind].num_bytes)))
    np.testing.assert_array_equal(found.reshape(ROWS, -1).numpy(), reference(kind, data))


def test_a_type_that_needs_the_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf.quants", None)
    with pytest.raises(ModelError, match=r'IQ3_S blocks are unpacked by the gguf package; .*"paceline\[gguf\]"'):
        make("IQ3_S", np.zeros((1, 110), np.uint8))


def test_scales_beyond_float16_stay_float32() -> None:
    data = np.full((1, 17), 0x21, np.uint8)
    for exponent, wanted in (
        (128, BlockType.Q8_0),
        (104, BlockType.Q8_0),
        (103, BlockType.Q8_F),
        (200, BlockType.Q8_F),
    ):
        data[0, 0] = exponent
        rows, is_exact = make("MXFP4", data)
        assert (rows.type, is_exact) == (wanted, True)
        np.testing.assert_array_equal(values_of(rows), reference("MXFP4", data))


def test_blocks_of_zeros_do_not_ask_for_float32() -> None:
    data = np.zeros((2, 17), np.uint8)  # 2^-128 times nothing
    data[1] = 0x71
    rows, _ = make("MXFP4", data)
    assert rows.type == BlockType.Q8_0
    np.testing.assert_array_equal(values_of(rows), reference("MXFP4", data))


def test_rows_longer_than_what_is_unpacked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.formats.gguf.lossless._CHUNK", 768)
    monkeypatch.setattr("paceline.formats.gguf.nearest._CHUNK", 768)
    for kind in ("IQ4_XS", "Q5_0", "Q3_K", "Q2_K"):
        data = random_rows(kind, 2, rows=7, blocks=11)
        found, _ = make(kind, data)
        monkeypatch.undo()
        whole, _ = make(kind, data)
        monkeypatch.setattr("paceline.formats.gguf.lossless._CHUNK", 768)
        monkeypatch.setattr("paceline.formats.gguf.nearest._CHUNK", 768)
        assert torch.equal(found.data, whole.data), kind


def test_the_table_of_types_is_the_packages() -> None:
    sizes = {kind.name: gguf.GGML_QUANT_SIZES[kind] for kind in gguf.GGMLQuantizationType}
    for number, kind in KINDS.items():
        assert gguf.GGMLQuantizationType[kind.name] == number
        assert sizes[kind.name] == (kind.weights, kind.num_bytes)
    known = {int(kind) for kind in gguf.GGMLQuantizationType}
    assert known <= KINDS.keys() | REFUSED.keys()
    assert not KINDS.keys() & REFUSED.keys()
    assert set(CODES) | {"Q3_K"} == set(EXACT)
