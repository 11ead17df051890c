"""Whole folders: which parameters there are, in which files, under which names; what is inside, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from paceline.errors import ModelError
from paceline.formats.checkpoints import open_checkpoint

from . import packers
from .folders import LLAMA, QWEN2, Packed, assert_same, read_model, values, write_folder, write_model

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
QWEN3_MOE = LLAMA | {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 1,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "mlp_only_layers": [],
}
GPT_OSS = LLAMA | {"model_type": "gpt_oss", "num_hidden_layers": 1, "num_local_experts": 2, "intermediate_size": 64}


def gptq(name: str, n: int, k: int, bits: int = 4) -> Packed:
    x = packers.linear(np.random.default_rng(len(name) + n + k), n, k, bits, 32, sym=True)
    return packers.gptq(x), x.values


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    return tmp_path, write_model(tmp_path, LLAMA, GPTQ, gptq)


def rewrite(folder: Path, **changed: torch.Tensor | None) -> None:
    """Tensors changed, added, or taken away; dots of names are two underscores here."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changed.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, folder / "model.safetensors")


def test_shards(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, meant = llama
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        save_file({key: tensors[key] for key in list(tensors)[i::3]}, folder / name)
    weight_map = {key: names[i % 3] for i, key in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(read_model(folder), meant)
    assert open_checkpoint(folder).num_bytes == sum((folder / name).stat().st_size for name in names)
    (folder / names[1]).unlink()
    with pytest.raises(ModelError, match="which is not there"):
        open_checkpoint(folder)
    weight_map["lm_head.weight"] = "../../etc/passwd.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"a \.safetensors file of its folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json"])
def test_older_folders_have_a_file_more(tmp_path: Path, file: str) -> None:
    def pack(name: str, n: int, k: int) -> Packed:
        x = packers.linear(np.random.default_rng(1), n, k, 4, 64, sym=False)
        return (packers.awq if file == "quant_config.json" else packers.gptq)(x), x.values

    meant = write_model(tmp_path, LLAMA, {}, pack)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(ModelError, match="no quantization_config"):
        open_checkpoint(tmp_path)
    words = {"w_bit": 4, "q_group_size": 64, "zero_point": True, "version": "GEMM"}
    (tmp_path / file).write_text(json.dumps({"bits": 4, "group_size": 64, "sym": False} | words))
    (tmp_path / "model.safetensors").rename(tmp_path / "gptq_model-4bit-64g.safetensors")
    assert_same(read_model(tmp_path), meant)


def test_the_configuration_names_no_quantisation(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    checkpoint = open_checkpoint(llama[0])
    assert not hasattr(checkpoint.config, "quantization_config")
    assert checkpoint.config.model_type == "llama"
    assert checkpoint.tokenizer() is None


def test_patterns_override_bits_of_single_linears(tmp_path: Path) -> None:
    def pack(name: str, n: int, k: int) -> Packed:
        return gptq(name, n, k, 8 if "layers.1.mlp" in name else 4)

    settings = GPTQ | {"dynamic": {"-:lm_head": {}, r"+:.*layers\.1\.mlp": {"bits": 8}}}
    assert_same(read_model_of(tmp_path, LLAMA, settings, pack), write_model(tmp_path, LLAMA, settings, pack))


def read_model_of(folder: Path, config: dict[str, Any], settings: dict[str, Any], pack: Any) -> Any:
    write_model(folder, config, settings, pack)
    return read_model(folder)


def test_what_is_spare_is_left_out(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, meant = llama
    layer = "model__layers__0__self_attn__"
    rewrite(
        folder,
        **{
            f"{layer}q_proj__bias": torch.zeros(96),  # as early packers of GPTQ add
            f"{layer}rotary_emb__inv_freq": torch.rand(16),
            f"{layer}k_proj__input_scale": torch.rand(1),
            f"{layer}k_scale": torch.rand(1),
        },
    )
    assert_same(read_model(folder), meant)
    rewrite(folder, **{f"{layer}q_proj__bias": torch.rand(96)})
    with pytest.raises(ModelError, match=r"q_proj.bias is no parameter of LlamaForCausalLM"):
        read_model(folder)


def test_a_parameter_that_is_missing(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    rewrite(llama[0], model__norm__weight=None)
    with pytest.raises(ModelError, match=r"1 parameters of LlamaForCausalLM are missing, model.norm.weight among them"):
        read_model(llama[0])


def test_a_parameter_of_another_shape_than_the_configuration_says(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    settings = LLAMA | {"intermediate_size": 192, "quantization_config": GPTQ}
    (llama[0] / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"is \[96, 160\]; LlamaForCausalLM has \[96, 192\]"):
        read_model(llama[0])


@pytest.mark.parametrize("is_quantised", [True, False])
def test_a_head_of_its_own_is_not_tied(tmp_path: Path, is_quantised: bool) -> None:
    meant = write_model(tmp_path, QWEN2, GPTQ, gptq)
    rewrite(tmp_path, lm_head__weight=load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].clone())
    assert open_checkpoint(tmp_path).config.tie_word_embeddings
    assert_same(read_model(tmp_path), meant)
    x = packers.linear(np.random.default_rng(1), 40, 160, 4, 32, sym=True)
    head = torch.randn(40, 160)
    rewrite(tmp_path, lm_head__weight=None if is_quantised else head)
    if is_quantised:
        rewrite(tmp_path, **{f"lm_head__{name}": tensor for name, tensor in packers.gptq(x).items()})
    assert not open_checkpoint(tmp_path).config.tie_word_embeddings
    assert_same(read_model(tmp_path), meant | {"lm_head.weight": x.values if is_quantised else head.double().numpy()})


def experts_one_by_one(folder: Path, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """A mixture whose experts the folder holds apart, as it is published."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**QWEN3_MOE))
    tensors: dict[str, torch.Tensor] = {}
    meant: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(6)
    for name, parameter in model.named_parameters():
        if ".experts." not in name:
            tensors[name] = torch.randn(parameter.shape)
            meant[name] = tensors[name].double().numpy()
            continue
        module, _, word = name.rpartition(".")
        parts = ["gate_proj", "up_proj"] if word == "gate_up_proj" else ["down_proj"]
        n, k = parameter.shape[1] // len(parts), parameter.shape[2]
        rows = []
        for expert in range(parameter.shape[0]):
            for part in parts:
                x = packers.linear(rng, n, k, 4, 32, sym=True)
                tensors |= {f"{module}.{expert}.{part}.{key}": t for key, t in packers.gptq(x).items()}
                rows.append(x.values)
        meant[name] = np.concatenate(rows)
    write_folder(folder, QWEN3_MOE, settings, tensors)
    return meant


def test_experts_are_one_matrix(tmp_path: Path) -> None:
    meant = experts_one_by_one(tmp_path, GPTQ)
    weights = read_model(tmp_path)
    assert_same(weights, meant)
    assert values(weights["model.layers.0.mlp.experts.gate_up_proj"]).shape == (3 * 128, 96)
    words = ("qweight", "qzeros", "scales", "g_idx")
    rewrite(tmp_path, **dict.fromkeys(f"model__layers__0__mlp__experts__2__up_proj__{word}" for word in words))
    with pytest.raises(ModelError, match=r"gate_up_proj: 5 matrices of experts; allowed: 2 of each of 3"):
        read_model(tmp_path)


def test_experts_of_gpt_oss(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**GPT_OSS))
    tensors: dict[str, torch.Tensor] = {}
    meant: dict[str, np.ndarray] = {}
    for name, parameter in model.named_parameters():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, k, n = parameter.shape
            blocks, scales, whole = packers.mxfp4(np.random.default_rng(n), experts, n, k // 32)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            meant[name] = whole.reshape(experts * n, k)
        else:
            tensors[name] = torch.randn(parameter.shape)
            meant[name] = tensors[name].double().numpy()
    write_folder(tmp_path, GPT_OSS, {"quant_method": "mxfp4"}, tensors)
    assert_same(read_model(tmp_path), meant)


def test_what_is_inside(llama: tuple[Path, dict[str, np.ndarray]]) -> None:
    packed, floats = open_checkpoint(llama[0]).describe()
    assert (packed.name, packed.tensors, packed.becomes, packed.is_exact) == ("GPTQ int4", 14, "Q4_0", True)
    assert packed.weights == 2 * (96 * 96 * 2 + 96 * 32 * 2 + 96 * 160 * 3)
    tensors = load_file(llama[0] / "model.safetensors")
    parts = [t for name, t in tensors.items() if name.rpartition(".")[2] != "weight"]
    assert packed.num_bytes == sum(t.nbytes for t in parts)
    assert packed.bits_per_weight == 8 * packed.num_bytes / packed.weights
    assert (floats.name, floats.becomes, floats.is_exact, floats.tensors) == ("F16", "F16", True, 7)
