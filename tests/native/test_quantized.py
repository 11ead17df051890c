"""Quantised kernels on every instruction set: bit for bit what numpy makes of the definition, wherever a row stands.

Since each set is compared with the same numbers, all have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from native.blocks import INPUTS, exact, inputs_of, linear, parts_of, random_blocks
from native.sets import all_sets
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.dequantize import dequantize
from paceline.native import library as library_module
from paceline.native.library import Library
from paceline.native.ops import run
from paceline.native.quantized import QuantizedWeight

SETS = all_sets()
pytestmark = pytest.mark.skipif(not SETS, reason="no native kernels")
every_kind = pytest.mark.parametrize("kind", BlockType, ids=lambda kind: kind.name)
every_set = pytest.mark.parametrize("kernels", SETS, ids=lambda found: found.name)
# Features that fill no group, or no super-block: blocks are padded by their file, inputs by zeros.
SHAPES = [(1, 1, 1), (3, 31, 32), (5, 33, 31), (2, 100, 257), (9, 7, 512), (70, 32, 96), (8, 40, 1000), (4, 65, 7)]


@pytest.fixture(scope="module", autouse=True)
def three_workers() -> Iterator[None]:
    """As many workers as are asked for, on any machine."""
    before, threads = library_module.processors, torch.get_num_threads()
    library_module.processors = lambda: 3
    yield
    library_module.processors = before
    torch.set_num_threads(threads)


def drawn(rows: int, k: int, seed: int = 0) -> torch.Tensor:
    """Inputs of very different sizes, with a group of zeros."""
    generator = torch.Generator().manual_seed(1000 * rows + k + seed)
    x = torch.randn(rows, k, generator=generator) * torch.exp(3 * torch.randn(rows, 1, generator=generator))
    x[rows // 2, : min(k, 32)] = 0
    return x


def quantized(weight: QuantizedWeight, x: torch.Tensor) -> torch.Tensor:
    out = torch.full((len(x), weight.input_bytes), 77, dtype=torch.uint8)
    run(weight.library, [weight.quantize(out, x, weight.order)])
    return out


def product(weight: QuantizedWeight, x: torch.Tensor, bias: torch.Tensor | None = None) -> np.ndarray:
    out = torch.full((len(x), weight.num_columns), 7.0)
    run(weight.library, [weight.linear(out, quantized(weight, x), bias)])
    return out.numpy()


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    """Every bit, but those that tell one NaN from another."""
    assert ours.dtype == expected.dtype
    assert np.array_equal(np.isnan(ours), np.isnan(expected))
    assert np.nan_to_num(ours).tobytes() == np.nan_to_num(expected).tobytes()


@every_set
@every_kind
def test_rows_are_the_values_of_blocks(kernels: Library, kind: BlockType):
    for k in (1, 31, 64, 257, 512):
        blocks = random_blocks(kind, 37, k)
        weight = QuantizedWeight(kernels, blocks)
        tokens = torch.tensor([0, 36, 5, 5, -1, 37, 2**62, -(2**63), 31, 32])
        expected = dequantize(blocks, torch.float64)[tokens.clamp(0, 36)].float()  # rounded once
        wide = torch.full((len(tokens), k + 3), 7.0)
        run(kernels, [weight.rows(wide[:, 1 : k + 1], tokens)])
        assert torch.equal(wide[:, 1 : k + 1], expected)
        assert (wide[:, [0, -2, -1]] == 7).all()
        narrow = torch.empty(len(tokens), k, dtype=torch.bfloat16)
        run(kernels, [weight.rows(narrow, tokens)])
        assert torch.equal(narrow, expected.bfloat16())


@every_set
@every_kind
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_linear_is_what_its_definition_says(kernels: Library, kind: BlockType, shape: tuple[int, int, int]):
    rows, columns, k = shape
    blocks, x = random_blocks(kind, columns, k), drawn(rows, k)
    weight, parts = QuantizedWeight(kernels, blocks), parts_of(blocks)
    assert_same(product(weight, x), linear(parts, x.numpy()))
    bias = torch.randn(columns, generator=torch.Generator().manual_seed(1))
    assert_same(product(weight, x, bias), linear(parts, x.numpy(), bias.numpy()))


@every_kind
def test_the_definition_is_the_product_up_to_rounding(kind: BlockType):
    """A term of the chain is rounded when its scales are multiplied and at each sum it is in: (n + 2) u in all."""
    for rows, columns, k in SHAPES:
        blocks, x = random_blocks(kind, columns, k), drawn(rows, k)
        wanted, size, terms = exact(parts_of(blocks), x.numpy())
        ours = linear(parts_of(blocks), x.numpy())
        assert (np.abs(ours - wanted) <= (terms + 2) * 2.0**-24 * size).all()
        inputs = inputs_of(x.numpy())
        rounded = (inputs["q"].astype(np.float64) * inputs["d"][..., None]).reshape(rows, -1)[:, :k]
        values = dequantize(blocks, torch.float64).numpy()
        np.testing.assert_allclose(wanted, rounded @ values.T, rtol=1e-9, atol=1e-9)


@every_set
@every_kind
def test_memory_may_lie_apart_and_be_bfloat16(kernels: Library, kind: BlockType):
    blocks = random_blocks(kind, 45, 75)
    weight, x = QuantizedWeight(kernels, blocks), drawn(6, 80)[:, 3:78]
    bias = torch.randn(45, generator=torch.Generator().manual_seed(2))
    inputs = torch.full((6, 2 * weight.input_bytes), 9, dtype=torch.uint8)[:, : weight.input_bytes]
    for dtype in (torch.float32, torch.bfloat16):
        given_x, given_bias = x.to(dtype), bias.to(dtype)
        expected = torch.from_numpy(linear(parts_of(blocks), given_x.float().numpy(), given_bias.float().numpy()))
        out = torch.full((6, 50), 7.0, dtype=dtype)
        run(kernels, [weight.quantize(inputs, given_x), weight.linear(out[:, 2:47], inputs, given_bias)])
        assert torch.equal(out[:, 2:47], expected.to(dtype))
        assert (out[:, [0, 1, 47, 48, 49]] == 7).all()


@every_set
@every_kind
def test_a_row_has_the_same_bits_at_every_row_count_and_place(kernels: Library, kind: BlockType):
    blocks, x = random_blocks(kind, 33, 300), drawn(150, 300)
    weight = QuantizedWeight(kernels, blocks)
    expected = linear(parts_of(blocks), x.numpy())
    step = 1 if kernels is SETS[0] else 3  # which meets every remainder of a tile of rows too
    for count in (*range(1, 71, step), 128, 129, 150):
        torch.set_num_threads(1 + count % 3)
        order = torch.randperm(150, generator=torch.Generator().manual_seed(count))[:count]
        assert_same(product(weight, x[order]), expected[order.numpy()])


@every_set
def test_inputs_are_rounded_to_nearest_by_the_largest_of_their_group(kernels: Library):
    x = drawn(9, 300)
    x[1] *= 1e-36  # some groups below what has an inverse
    x[2] *= 1e30
    x[3] = torch.arange(300) % 32 - 15.5  # ties: with a largest of 127 the scale is 1
    x[3, ::32] = 127
    x[4, 5], x[4, 100], x[4, 299] = torch.nan, torch.inf, -torch.inf
    x[5] = torch.finfo(torch.float32).max
    x[6, 32:64] = torch.tensor([1e-30, -1e-31] * 16)
    x[7, 32:64] = torch.tensor([-0.0, 9e-31] * 16)
    weight = QuantizedWeight(kernels, random_blocks(BlockType.Q8_0, 3, 300))
    found = quantized(weight, x).numpy()[:, : 16 * INPUTS.itemsize].copy().view(INPUTS)
    expected = inputs_of(x.numpy())
    for name in ("q", "start", "half"):
        assert np.array_equal(found[name], expected[name])
    for name in ("d", "sum"):
        assert_same(found[name], expected[name])
    assert np.isnan(found["d"][4]).sum() == 3
    assert set(np.abs(found["q"][5, :9]).flatten().tolist()) == {127}


@every_set
@every_kind
def test_values_that_are_no_numbers_stay_in_their_row(kernels: Library, kind: BlockType):
    weight, x = QuantizedWeight(kernels, random_blocks(kind, 45, 70)), drawn(9, 70)
    before = product(weight, x)
    x[2, 7], x[4, 0], x[7, 69] = torch.nan, torch.inf, -torch.inf
    after, others = product(weight, x), [0, 1, 3, 5, 6, 8]
    assert np.isnan(after[[2, 4, 7]]).all()
    assert_same(after[others], before[others])


@every_set
@every_kind
def test_features_may_have_an_order_of_their_own(kernels: Library, kind: BlockType):
    blocks, x = random_blocks(kind, 20, 300), drawn(5, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    weight = QuantizedWeight(kernels, BlockRows(kind, blocks.data, 300, order))
    assert_same(product(weight, x), linear(parts_of(blocks), x[:, order].numpy()))
    assert_same(product(weight, x.bfloat16()), linear(parts_of(blocks), x[:, order].bfloat16().float().numpy()))


@every_set
@every_kind
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF])
def test_codes_at_the_ends_of_their_range_do_not_saturate(kernels: Library, kind: BlockType, byte: int):
    blocks = random_blocks(kind, 33, 512, byte=byte)
    x = torch.tensor([[1.0], [-1.0], [1.0]]) * torch.ones(3, 512)
    x[2] *= 1 - 2 * (torch.arange(512) % 2)
    assert_same(product(QuantizedWeight(kernels, blocks), x), linear(parts_of(blocks), x.numpy()))


@every_kind
@settings(max_examples=25, derandomize=True)
@given(data=st.data())
def test_any_bytes_are_blocks(kind: BlockType, data: st.DataObject):
    """Scales that are infinite, no numbers, or negative zeros included."""
    rows, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 600))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = BLOCKS[kind]
    raw = rng.integers(0, 256, (rows, -(-k // shape.weights) * shape.num_bytes), dtype=np.uint8)
    blocks, x = BlockRows(kind, torch.from_numpy(raw), k), drawn(3, k)
    expected = linear(parts_of(blocks), x.numpy())
    for kernels in SETS:
        assert_same(product(QuantizedWeight(kernels, blocks), x), expected)


def test_a_kernel_is_never_given_what_it_must_not_have():
    weight = QuantizedWeight(SETS[0], random_blocks(BlockType.Q4_0, 8, 64))
    x, inputs, out = torch.zeros(2, 64), torch.zeros(2, weight.input_bytes, dtype=torch.uint8), torch.zeros(2, 8)
    for bad in (x[:, :63], x.double(), torch.zeros(64, 2).t(), torch.zeros(3, 64)):
        with pytest.raises(ValueError, match=r"\S"):
            weight.quantize(inputs, bad)
    for bad in (inputs[:1], inputs[:, :-1], inputs.char()):
        with pytest.raises(ValueError, match=r"\S"):
            weight.linear(out, bad)
    for bad in (out[:, :7], out.double(), torch.zeros(8, 2).t()):
        with pytest.raises(ValueError, match=r"\S"):
            weight.linear(bad, inputs)
    for bad in (torch.zeros(7), torch.zeros(8, dtype=torch.int64)):
        with pytest.raises(ValueError, match="bias"):
            weight.linear(out, inputs, bad)
    for bad_tokens in (torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match="tokens"):
            weight.rows(torch.zeros(2, 64), bad_tokens)
    with pytest.raises(ValueError, match="order"):
        QuantizedWeight(SETS[0], BlockRows(BlockType.Q4_0, torch.zeros(8, 36, dtype=torch.uint8), 64, torch.arange(63)))
