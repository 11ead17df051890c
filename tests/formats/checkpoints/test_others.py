"""compressed-tensors, eight-bit floats, bitsandbytes, torchao and MXFP4: the very values, or the nearest and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.checkpoint import StoredWeight

from . import oracle, packers
from .folders import read_linear, values

SIZES = st.sampled_from([-1, 32, 64, 128])
SEEDS = st.integers(0, 9999)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("linear")


def scheme(bits: int, size: int, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "group_size": None if size == -1 else size, "type": "int", **more}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


def assert_exact(weight: StoredWeight, meant: np.ndarray, *kinds: BlockType) -> None:
    np.testing.assert_array_equal(values(weight), meant)
    assert weight.is_exact
    assert isinstance(weight.value, BlockRows)
    assert weight.value.type in kinds


def assert_nearest(weight: StoredWeight, meant: np.ndarray) -> None:
    """Each value within half a step of its group, and a little for the step's own rounding."""
    assert not weight.is_exact
    assert isinstance(weight.value, BlockRows)
    assert weight.value.type == BlockType.Q8_0
    n, k = meant.shape
    largest = np.abs(np.pad(meant, ((0, 0), (0, -k % 32)))).reshape(n, -1, 32).max(-1).repeat(32, 1)[:, :k]
    error = np.abs(oracle.values(weight.value) - meant)
    assert (error <= largest / 127 * 0.57 + 127 * 2.0**-25).all()


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from([2, 4, 8]), SIZES, st.booleans(), SEEDS)
def test_packed(folder: Path, n: int, k: int, bits: int, size: int, is_ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = packers.linear(rng, n, k, bits, size, sym=True)
    if is_ordered:
        rng.shuffle(x.group_of)
    tensors = packers.compressed(x, g_idx=is_ordered)
    kind = BlockType.Q8_0 if bits == 8 else BlockType.Q4_0
    weight = read_linear(folder, scheme(bits, size), tensors)
    if np.bincount(x.group_of)[:-1].max(initial=0) % 32 == 0:
        assert_exact(weight, x.values, kind)
    assert weight.stored_as == f"compressed-tensors int{bits}"


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 200), SIZES, SEEDS)
def test_packed_with_zeros(folder: Path, n: int, k: int, size: int, seed: int) -> None:
    x = packers.linear(np.random.default_rng(seed), n, k, 4, size, sym=False)
    weight = read_linear(folder, scheme(4, size), packers.compressed(x, zeros=True))
    assert_exact(weight, x.values, BlockType.Q4_Z, BlockType.Q4_0)


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 200), st.sampled_from([torch.bfloat16, torch.float32]), SEEDS)
def test_bytes(folder: Path, n: int, k: int, dtype: torch.dtype, seed: int) -> None:
    x = packers.linear(np.random.default_rng(seed), n, k, 8, -1, sym=True, dtype=dtype)
    kind = BlockType.Q8_0 if dtype == torch.bfloat16 else BlockType.Q8_F
    assert_exact(read_linear(folder, scheme(8, -1), packers.compressed(x, packed=False)), x.values, kind)


def test_bytes_whose_zeros_do_not_fit_are_converted(folder: Path) -> None:
    x = packers.linear(np.random.default_rng(2), 8, 96, 8, 32, sym=False)
    assert_nearest(read_linear(folder, scheme(8, 32), packers.compressed(x, packed=False, zeros=True)), x.values)
    x.codes = np.clip(x.codes, x.zeros[:, x.group_of] - 128, x.zeros[:, x.group_of] + 127)
    weight = read_linear(folder, scheme(8, 32), packers.compressed(x, packed=False, zeros=True))
    assert_exact(weight, x.values, BlockType.Q8_0)


def test_groups_that_cross_blocks_are_converted(folder: Path) -> None:
    x = packers.linear(np.random.default_rng(2), 8, 96, 4, 48, sym=True)
    assert_nearest(read_linear(folder, scheme(4, 48), packers.compressed(x)), x.values)


def test_a_group_that_names_a_linear_goes_first(folder: Path) -> None:
    settings = scheme(8, 32)
    settings["config_groups"]["group_1"] = {"targets": ["re:^m$"], "weights": {"num_bits": 4, "group_size": 64}}
    x = packers.linear(np.random.default_rng(2), 8, 128, 4, 64, sym=True)
    assert_exact(read_linear(folder, settings, packers.compressed(x)), x.values, BlockType.Q4_0)


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), SEEDS)
def test_blocks_of_eight_bit_floats(folder: Path, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = packers.e4m3(rng, n, k)
    scale = torch.from_numpy(rng.uniform(1e-4, 2e-4, (-(-n // 128), -(-k // 128)))).float()
    meant = packers.e4m3_values(weight) * scale.double().numpy().repeat(128, 0).repeat(128, 1)[:n, :k]
    read = read_linear(folder, {"quant_method": "fp8"}, {"weight": weight, "weight_scale_inv": scale})
    assert_nearest(read, meant)
    assert read.stored_as == "FP8 E4M3"


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (5, 1), (5,)])
def test_scales_of_rows_and_of_tensors(folder: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    weight, scale = packers.e4m3(rng, 5, 70), torch.rand(shape) / 2**9
    meant = packers.e4m3_values(weight) * scale.double().numpy().reshape(-1, 1)
    for settings in ({"quant_method": "fbgemm_fp8"}, scheme(8, -1, type="float")):
        assert_nearest(read_linear(folder, settings, {"weight": weight, "weight_scale": scale}), meant)


def test_exponents_alone_are_scales(folder: Path) -> None:
    rng = np.random.default_rng(4)
    weight, exponents = packers.e4m3(rng, 5, 96), rng.integers(115, 120, (5, 3))
    meant = packers.e4m3_values(weight) * 2.0 ** (exponents - 127).repeat(32, 1)
    scale = torch.from_numpy(exponents.astype(np.uint8))
    settings = {"quant_method": "mxfp8", "weight_block_size": [1, 32]}
    for tensor in (scale, scale.view(torch.float8_e8m0fnu)):
        assert_nearest(read_linear(folder, settings, {"weight": weight, "weight_scale_inv": tensor}), meant)


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 200), SEEDS)
def test_bitsandbytes_int8(folder: Path, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, largest = rng.integers(-127, 128, (n, k)), rng.uniform(0.1, 1, n).astype(np.float32)
    scales = (largest / np.float32(127)).astype(np.float64)
    tensors = {"weight": torch.from_numpy(codes.astype(np.int8)), "SCB": torch.from_numpy(largest)}
    tensors["weight_format"] = torch.tensor(0, dtype=torch.uint8)
    weight = read_linear(folder, {"quant_method": "bitsandbytes"}, tensors)
    assert_exact(weight, codes * scales[:, None], BlockType.Q8_F, BlockType.Q8_0)


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 200), st.booleans(), SEEDS)
def test_bitsandbytes_nf4(folder: Path, n: int, k: int, nested: bool, seed: int) -> None:
    tensors, meant = packers.bnb_4bit(np.random.default_rng(seed), n, k, nested=nested)
    weight = read_linear(folder, {"quant_method": "bitsandbytes"}, tensors)
    assert_nearest(weight, meant)
    assert weight.stored_as == "bitsandbytes nf4"


def read_torchao(folder: Path, kind: str, attributes: dict[str, Any], parts: dict[str, torch.Tensor]) -> StoredWeight:
    words = json.dumps({"_type": kind, "_data": attributes, "_tensor_data_names": list(parts)})
    metadata = {"m.weight": words, "m.bias": '{"_type": "Tensor"}', "tensor_names": '["m.weight"]', "format": "pt"}
    tensors = {f"_weight_{name}": tensor for name, tensor in parts.items()}
    return read_linear(folder, {"quant_method": "torchao"}, tensors, metadata)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_torchao_int8(folder: Path, size: int) -> None:
    x = packers.linear(np.random.default_rng(1), 7, 96, 8, size, sym=True, dtype=torch.bfloat16)
    parts = {"qdata": torch.from_numpy((x.codes - 128).astype(np.int8)), "scale": x.scales}
    attributes = {"block_size": [1, size], "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}}
    assert_exact(read_torchao(folder, "Int8Tensor", attributes, parts), x.values, BlockType.Q8_0)
    parts["zero_point"] = torch.zeros_like(x.scales, dtype=torch.int8)
    assert_exact(read_torchao(folder, "IntxUnpackedToInt8Tensor", attributes, parts), x.values, BlockType.Q8_0)


def test_torchao_int4(folder: Path) -> None:
    x = packers.linear(np.random.default_rng(1), 7, 96, 4, 32, sym=True, dtype=torch.bfloat16)
    shift = torch.rand(x.scales.shape).bfloat16() / 16
    nibbles = torch.from_numpy(((x.codes - 8) & 15).astype(np.uint8))
    parts = {"qdata": nibbles[:, ::2] | nibbles[:, 1::2] << 4, "scale": x.scales.T, "zero_point": shift.T}
    weight = read_torchao(folder, "Int4Tensor", {"block_size": [1, 32], "shape": [7, 96]}, parts)
    assert_nearest(weight, x.values + shift.double().numpy()[:, x.group_of])


def test_torchao_float8(folder: Path) -> None:
    weight, scale = packers.e4m3(np.random.default_rng(1), 5, 40), torch.rand(5, 1) / 512
    read = read_torchao(folder, "Float8Tensor", {"block_size": [1, 40]}, {"qdata": weight, "scale": scale})
    assert_nearest(read, packers.e4m3_values(weight) * scale.double().numpy())


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.sampled_from([60, 110, 130]), SEEDS)
def test_mxfp4(folder: Path, experts: int, n: int, groups: int, lowest: int, seed: int) -> None:
    blocks, scales, meant = packers.mxfp4(np.random.default_rng(seed), experts, n, groups, lowest=lowest)
    weight = read_linear(folder, {"quant_method": "mxfp4"}, {"weight_blocks": blocks, "weight_scales": scales})
    kind = BlockType.Q8_0 if scales.min() >= 104 and scales.max() <= 143 else BlockType.Q8_F
    assert_exact(weight, meant.reshape(experts * n, -1), kind)


def test_mxfp4_of_compressed_tensors(folder: Path) -> None:
    blocks, scales, meant = packers.mxfp4(np.random.default_rng(1), 6, 3)
    tensors = {"weight_packed": blocks.reshape(6, -1), "weight_scale": scales}
    assert_exact(read_linear(folder, scheme(4, 32, type="float"), tensors), meant, BlockType.Q8_0)


def test_transformers_reads_the_same_values(folder: Path) -> None:
    """Where it has code for a CPU; private, but what else would be another's word."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    rng = np.random.default_rng(8)
    blocks, scales, _ = packers.mxfp4(rng, 2, 3, 4)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    ours = read_linear(folder, {"quant_method": "mxfp4"}, {"weight_blocks": blocks, "weight_scales": scales})
    np.testing.assert_array_equal(values(ours), theirs.transpose(1, 2).reshape(6, 128).double().numpy())
    weight, scale = packers.e4m3(rng, 256, 384), torch.rand(2, 3) / 256
    dense = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
    ours = read_linear(folder, {"quant_method": "fp8"}, {"weight": weight, "weight_scale_inv": scale})
    assert_nearest(ours, dense.double().numpy())
