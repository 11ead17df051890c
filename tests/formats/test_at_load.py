"""Floats quantised at load, and what is kept of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from paceline.errors import ModelError
from paceline.formats import at_load, kept, mixes
from paceline.formats.at_load import FloatFolder, FloatModel, QuantizedAtLoad
from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.dequantize import dequantize
from paceline.formats.rounding import quantize
from paceline.native.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
Values = dict[str, BlockRows | torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Llama in a folder, and an empty cache."""
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=300,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def read(folder: Path, mix: str = "int4") -> Values:
    return {weight.name: weight.value for weight in QuantizedAtLoad(FloatFolder(folder), mix).weights()}


def assert_same(found: Values, wanted: Values) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        other = found[name]
        if isinstance(value, BlockRows):
            assert isinstance(other, BlockRows)
            assert (other.type, other.k) == (value.type, value.k)
            assert torch.equal(other.data, value.data), name
        else:
            assert torch.equal(other, value), name  # type: ignore[arg-type]


def cache_files(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache" / "quantized").iterdir())


def test_matrices_become_blocks_and_the_rest_stays(folder: Path) -> None:
    floats, found = load_file(folder / "model.safetensors"), read(folder)
    assert set(found) == set(floats)
    for name, value in found.items():
        if isinstance(value, BlockRows):
            assert torch.equal(value.data, quantize(floats[name], value.type).data)
        else:
            assert name.endswith("norm.weight")
            assert torch.equal(value, floats[name])
    down = found["model.layers.1.mlp.down_proj.weight"]
    assert isinstance(down, BlockRows)
    assert down.type == BlockType.Q8_0  # 300 would be filled up to 512


def test_the_second_time_nothing_is_quantised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder)
    monkeypatch.setattr(at_load, "quantize", None)
    assert_same(read(folder), first)
    moved = shutil.copytree(folder, folder.parent / "elsewhere")
    assert_same(read(moved), first)
    assert len(cache_files(folder)) == 1


def test_other_weights_and_other_mixes_are_kept_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixes, "_SMALL", 0)  # else both mixes are of eight bits here
    before = read(folder)
    int8 = read(folder, "int8")
    assert {v.type for v in int8.values() if isinstance(v, BlockRows)} == {BlockType.Q8_0}
    floats = load_file(folder / "model.safetensors")
    save_file({k: v + 0.01 for k, v in floats.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    after = read(folder)
    name = "lm_head.weight"
    assert not torch.equal(after[name].data, before[name].data)
    assert len(cache_files(folder)) == 3


@pytest.mark.parametrize("damage", ["cut", "zeros", "garbage", "empty"])
def test_what_is_damaged_is_quantised_anew(folder: Path, damage: str) -> None:
    wanted = read(folder)
    (file,) = cache_files(folder)
    data = bytearray(file.read_bytes())
    if damage == "zeros":  # as after a crash: the length is right
        data[-20000:-5000] = bytes(15000)
    file.write_bytes({"cut": data[:-100], "zeros": data, "garbage": b"\xff" * 500, "empty": b""}[damage])
    assert_same(read(folder), wanted)
    read(folder)
    assert_same(read(folder), wanted)
    assert len(cache_files(folder)) == 1


def test_a_full_disk_is_no_hindrance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: free)
    read(folder)
    assert not cache_files(folder)


def test_a_disk_that_fills_up_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def put(self: kept._Writing, place: int, data: object) -> None:
        if next(calls) == 5:
            self._give_up()

    monkeypatch.setattr(kept._Writing, "_put", put)
    read(folder)
    assert not cache_files(folder)


def test_half_read_leaves_nothing(folder: Path) -> None:
    weights = QuantizedAtLoad(FloatFolder(folder), "int4").weights()
    next(weights)
    del weights
    assert not cache_files(folder)


def test_a_model_in_memory_is_not_kept_and_tells_its_progress(folder: Path) -> None:
    done: list[float] = []
    model = LlamaForCausalLM.from_pretrained(folder, dtype="auto")
    found = {w.name: w.value for w in QuantizedAtLoad(FloatModel(model), "int4", done.append).weights()}
    wanted = read(folder)
    assert_same({name: found[name] for name in wanted}, wanted)
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert len(done) == len(found)


def test_weights_stored_transposed_are_turned(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=16))
    for weight in QuantizedAtLoad(FloatModel(model), "int8").weights():
        if weight.name.endswith("c_attn.weight"):
            assert isinstance(weight.value, BlockRows)
            assert weight.value.data.shape == (96, 34)
            wanted = model.transformer.h[0].attn.c_attn.weight.t()
            assert torch.allclose(dequantize(weight.value), wanted, atol=1e-3)


def test_a_weight_that_is_no_number_is_refused(folder: Path) -> None:
    floats = load_file(folder / "model.safetensors")
    floats["lm_head.weight"][3, 4] = float("nan")
    save_file(floats, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="allowed for quantising: finite"):
        read(folder)
    assert not cache_files(folder)
