"""GPTQ and AWQ: the very values, whatever the shape, the order, the convention of zeros and the label."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline.formats.blocks import BlockRows, BlockType

from . import folders, packers
from .folders import LLAMA, QWEN2, assert_same, read_linear, read_model, values, write_model

SIZES = st.sampled_from([-1, 32, 64, 96, 128])
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("linear")


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
@pytest.mark.parametrize("settings", [GPTQ, AWQ], ids=["gptq", "awq"])
def test_a_whole_model(tmp_path: Path, config: dict, settings: dict) -> None:
    rng = np.random.default_rng(5)

    def pack(name: str, n: int, k: int) -> folders.Packed:
        x = packers.linear(rng, n, k, 4, 32, sym=settings is GPTQ)
        return (packers.gptq(x) if settings is GPTQ else packers.awq(x)), x.values

    meant = write_model(tmp_path, config, settings, pack)
    weights = read_model(tmp_path)
    assert_same(weights, meant)
    assert all(weight.is_exact for weight in weights.values())
    assert ("lm_head.weight" in weights) is not config["tie_word_embeddings"]


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 9), st.sampled_from([2, 3, 4, 8]), SIZES, st.booleans(), st.integers(0, 9999))
def test_symmetric_gptq(folder: Path, n: int, k: int, bits: int, size: int, is_ordered: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = packers.linear(rng, 8 * n, 32 * k, bits, size, sym=True)
    if is_ordered:
        rng.shuffle(x.group_of)
    settings = GPTQ | {"bits": bits, "group_size": size, "desc_act": is_ordered}
    weight = read_linear(folder, settings, packers.gptq(x, version=1 + seed % 2))
    np.testing.assert_array_equal(values(weight), x.values)
    assert weight.is_exact
    assert isinstance(weight.value, BlockRows)
    assert weight.value.type == (BlockType.Q8_0 if bits == 8 else BlockType.Q4_0)
    assert weight.stored_as == f"GPTQ int{bits}"


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 30), st.sampled_from([2, 4]), SIZES, st.booleans(), st.integers(0, 9999))
def test_asymmetric_gptq(folder: Path, n: int, k: int, bits: int, size: int, is_v2: bool, seed: int) -> None:
    x = packers.linear(np.random.default_rng(seed), 16 * n, 16 * k, bits, size, sym=False)
    settings = GPTQ | {"bits": bits, "group_size": size, "sym": False}
    settings |= {"checkpoint_format": "gptq_v2"} if is_v2 else {}
    weight = read_linear(folder, settings, packers.gptq(x, version=2 if is_v2 else 1, g_idx=bool(seed % 2)))
    np.testing.assert_array_equal(values(weight), x.values)
    assert weight.is_exact
    assert isinstance(weight.value, BlockRows)


@hypothesis.settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 150), SIZES, st.integers(0, 9999))
def test_awq(folder: Path, n: int, k: int, size: int, seed: int) -> None:
    x = packers.linear(np.random.default_rng(seed), 8 * n, k, 4, size, sym=False)
    weight = read_linear(folder, AWQ | {"group_size": size}, packers.awq(x))
    np.testing.assert_array_equal(values(weight), x.values)
    assert weight.is_exact
    assert weight.stored_as == "AWQ int4"


def test_a_label_that_lies_is_not_believed(folder: Path) -> None:
    x = packers.linear(np.random.default_rng(1), 16, 64, 4, 32, sym=False)
    for settings in (AWQ, GPTQ | {"sym": False}):
        for tensors in (packers.awq(x), packers.gptq(x)):
            weight = read_linear(folder, settings, tensors)
            np.testing.assert_array_equal(values(weight), x.values)


@pytest.mark.parametrize(("bits", "becomes"), [(4, BlockType.Q8_F), (8, BlockType.Q8_F)])
def test_a_scale_that_is_no_float16_is_kept(folder: Path, bits: int, becomes: BlockType) -> None:
    x = packers.linear(np.random.default_rng(1), 16, 64, bits, 32, sym=True, dtype=torch.float32)
    weight = read_linear(folder, GPTQ | {"bits": bits}, packers.gptq(x))
    np.testing.assert_array_equal(values(weight), x.values)
    assert isinstance(weight.value, BlockRows)
    assert weight.value.type == becomes
