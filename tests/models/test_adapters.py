"""Adapters are merged into their base: the logits of base and adapter side by side, in every form and on every path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

import paceline
from paceline.adapters import find_adapter
from paceline.model.pretrained import read_model
from paceline.native.library import library

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 17, 3, 90, 44, 8, 61]])
VOCAB = 97
# Modules of both bases, and how an adapter's matrices meet the input of each.
MODULES = {
    "llama": ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.embed_tokens", "lm_head"],
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj", "transformer.wte"],
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(4)
    shape = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    llama = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=64, tie_word_embeddings=True, **shape)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=24, n_layer=2, n_head=3, **ends)
    made = {"llama": LlamaForCausalLM(llama), "gpt2": GPT2LMHeadModel(gpt2)}
    folder = tmp_path_factory.mktemp("bases")
    for name, model in made.items():
        model.save_pretrained(folder / name)
    return {name: folder / name for name in made}


def write(folder: Path, base: object, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    says = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 3, "lora_alpha": 5, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(says))
    named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return folder


def matrices(model: PreTrainedModel, path: str, rank: int) -> dict[str, torch.Tensor]:
    module = model.get_submodule(path)
    rows, columns = module.weight.shape
    if isinstance(module, nn.Embedding):
        a, b = torch.randn(rank, rows), torch.randn(columns, rank)
        return {f"{path}.lora_embedding_A": a, f"{path}.lora_embedding_B": b}
    wide, narrow = (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)
    return {f"{path}.lora_A.weight": torch.randn(rank, wide), f"{path}.lora_B.weight": torch.randn(narrow, rank)}


def beside(model: PreTrainedModel, tensors: dict[str, torch.Tensor], scale: Callable[[str], float]) -> torch.Tensor:
    """Logits of the base with each adapter's path beside its module, as it is while it is trained."""
    hooks = []
    for path in {name.partition(".lora_")[0] for name in tensors}:
        module = model.get_submodule(path)

        def add(module: nn.Module, given: Any, out: torch.Tensor, path: str = path) -> torch.Tensor:
            if isinstance(module, nn.Embedding):
                a, b = (tensors[f"{path}.lora_embedding_{part}"] for part in "AB")
                return out + a.t()[given[0]] @ b.t() * scale(path)
            a, b = (tensors[f"{path}.lora_{part}.weight"] for part in "AB")
            return out + given[0] @ a.t() @ b.t() * scale(path)

        hooks.append(module.register_forward_hook(add))
    with torch.inference_mode():
        logits = model(IDS).logits
    for hook in hooks:
        hook.remove()
    return logits


def logits_of(folder: object, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.inference_mode():
        return read_model(str(folder), dtype, CPU)(IDS).logits


@settings(max_examples=14)
@given(st.data())
def test_it_says_what_base_and_adapter_say_side_by_side(bases, tmp_path_factory, data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(sorted(bases)))
    chosen = data.draw(st.lists(st.sampled_from(MODULES[which]), min_size=1, unique=True))
    ranks = {path: data.draw(st.integers(1, 7)) for path in chosen}
    alphas = {path: data.draw(st.integers(1, 9)) for path in chosen}
    is_root = data.draw(st.booleans())
    torch.manual_seed(data.draw(st.integers(0, 99)))
    model = AutoModelForCausalLM.from_pretrained(bases[which])
    tensors = {name: tensor for path in chosen for name, tensor in matrices(model, path, ranks[path]).items()}
    ends = {path: path.partition("layers.")[2] or path for path in chosen}
    patterns = {
        "rank_pattern": {ends[p]: r for p, r in ranks.items()},
        "alpha_pattern": {ends[p]: a for p, a in alphas.items()},
    }
    folder = write(tmp_path_factory.mktemp("adapter"), bases[which], tensors, use_rslora=is_root, **patterns)
    expected = beside(model, tensors, lambda path: alphas[path] / (ranks[path] ** 0.5 if is_root else ranks[path]))
    assert torch.allclose(logits_of(folder), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert not torch.allclose(expected, logits_of(bases[which]), atol=1e-2)


@pytest.fixture
def simple(bases, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(bases["llama"])
    return write(tmp_path / "simple", bases["llama"], matrices(model, MODULES["llama"][0], 3))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", *(("int8",) if library() is not None else ())])
def test_it_decodes_exactly_on_every_path(simple: Path, dtype: str) -> None:
    with paceline.load(simple, dtype=dtype) as llm:
        assert llm.info is not None
        assert "LoRA adapter of rank 3, merged into" in llm.info.verdict
        plain = llm.generate([5, 17, 3, 5, 17], max_tokens=20, drafters="none")
        drafted = llm.generate([5, 17, 3, 5, 17], max_tokens=20, drafters="auto")
    assert drafted.token_ids == plain.token_ids
    with paceline.load(read_model(str(simple), torch.float32, CPU), dtype="auto") as whole:
        same = whole.generate([5, 17, 3, 5, 17], max_tokens=20, drafters="none")
    if dtype in ("auto", "float32"):
        assert same.token_ids == plain.token_ids


def test_sums_are_rounded_once(bases, simple: Path) -> None:
    path = f"{MODULES['llama'][0]}.weight"
    exact = read_model(str(simple), torch.float32, CPU).state_dict()[path]
    assert torch.equal(read_model(str(simple), torch.bfloat16, CPU).state_dict()[path], exact.bfloat16())
    base = LlamaForCausalLM.from_pretrained(bases["llama"], dtype=torch.bfloat16)
    base.save_pretrained(simple / "base")
    stored = read_model(f"{simple / 'base'}+{simple}", "auto", CPU)
    assert stored.dtype == torch.bfloat16
    exact = read_model(f"{simple / 'base'}+{simple}", torch.float32, CPU).state_dict()[path]
    assert torch.equal(stored.state_dict()[path], exact.bfloat16())
    assert not torch.equal(exact, exact.bfloat16().float())


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
def test_what_was_trained_whole_takes_its_place_alone(bases, tmp_path: Path, name: str) -> None:
    weight = torch.randn(VOCAB, 24)
    folder = write(tmp_path, bases["llama"], {f"{name}.weight": weight}, modules_to_save=[name.rpartition(".")[2]])
    model, before = read_model(str(folder), torch.float32, CPU), read_model(str(bases["llama"]), torch.float32, CPU)
    places = {"lm_head": model.get_output_embeddings(), "model.embed_tokens": model.get_input_embeddings()}
    for place, module in places.items():
        assert torch.equal(module.weight, weight if place == name else before.get_input_embeddings().weight)
    assert not model.config.tie_word_embeddings


def test_an_embedding_that_is_merely_saved_stays_tied(bases, tmp_path: Path) -> None:
    weight = torch.randn(VOCAB, 24)
    model = read_model(str(write(tmp_path, bases["llama"], {"model.embed_tokens.weight": weight})), torch.float32, CPU)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.get_output_embeddings().weight, weight)


def test_dora_gives_rows_their_lengths(bases, tmp_path: Path) -> None:
    path = MODULES["llama"][0]
    model = AutoModelForCausalLM.from_pretrained(bases["llama"])
    lengths = torch.rand(24) + 0.5
    tensors = {**matrices(model, path, 3), f"{path}.lora_magnitude_vector": lengths}
    folder = write(tmp_path, bases["llama"], tensors, use_dora=True)
    weight = read_model(str(folder), torch.float32, CPU).get_submodule(path).weight
    assert torch.allclose(weight.norm(dim=1), lengths, rtol=1e-5)
    plain = write(tmp_path / "plain", bases["llama"], matrices_of(tensors))
    direction = read_model(str(plain), torch.float32, CPU).get_submodule(path).weight
    assert torch.allclose(nn.functional.normalize(weight), nn.functional.normalize(direction), atol=1e-5)


def matrices_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "magnitude" not in name}


REFUSED = {
    "kind": ({"peft_type": "IA3"}, "of the kind 'IA3'; allowed: LORA"),
    "start": ({"init_lora_weights": "pissa_niter_4"}, "began as 'pissa_niter_4', which changes the base too"),
    "unknown": ({"layer_replication": [[0, 2]]}, r"has layer_replication=\[\[0, 2\]\], which cannot be merged"),
    "rank": ({"r": 4}, "q_proj has rank 3, and its settings say 4"),
    "dora": ({"use_dora": True}, "q_proj has A, B; allowed: A, B, magnitude"),
    "base": ({"base_model_name_or_path": None}, r"names no base; allowed: BASE\+"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_ask_for_something_else_are_refused(simple: Path, name: str) -> None:
    changes, words = REFUSED[name]
    says = json.loads((simple / "adapter_config.json").read_text())
    (simple / "adapter_config.json").write_text(json.dumps({**says, **changes}))
    with pytest.raises(paceline.ModelError, match=words):
        read_model(str(simple), torch.float32, CPU)


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (("q_proj", "r_proj"), "self_attn.r_proj, which LlamaForCausalLM has not"),
        (("lora_A", "lora_Z"), "q_proj.lora_Z.weight, which is no part of a LoRA"),
        (("self_attn.q_proj", "mlp.down_proj"), r"down_proj is for \[24, 24\]; the base has \[24, 40\]"),
        (("self_attn.q_proj", "self_attn"), "self_attn, a LlamaAttention; allowed: linears and embeddings"),
    ],
)
def test_tensors_without_a_place_are_refused(simple: Path, rename: tuple[str, str], words: str) -> None:
    file = simple / "adapter_model.safetensors"
    save_file({name.replace(*rename): tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(paceline.ModelError, match=words):
        read_model(str(simple), torch.float32, CPU)


def test_pickles_are_refused(simple: Path) -> None:
    (simple / "adapter_model.safetensors").rename(simple / "adapter_model.bin")
    with pytest.raises(paceline.ModelError, match="its weights are a pickle"):
        read_model(str(simple), torch.float32, CPU)


def test_a_quantised_base_is_refused(simple: Path, tmp_path: Path) -> None:
    (tmp_path / "quantised").mkdir()
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(config))
    with pytest.raises(paceline.ModelError):
        read_model(f"{tmp_path / 'quantised'}+{simple}", torch.float32, CPU)


def test_a_whole_model_beside_its_adapter_is_a_model(bases, simple: Path) -> None:
    assert find_adapter(str(simple)) is not None
    assert find_adapter(str(bases["llama"])) is None
    assert find_adapter("paceline-tiny") is None
    assert find_adapter(LlamaConfig()) is None
    AutoModelForCausalLM.from_pretrained(bases["llama"]).save_pretrained(simple)
    assert find_adapter(str(simple)) is None


def test_the_tokenizer_is_that_of_the_base(tmp_path: Path) -> None:
    model = read_model("paceline-tiny", torch.float32, CPU)
    path = "model.layers.0.self_attn.q_proj"
    folder = write(tmp_path, "paceline-tiny", matrices(model, path, 3))
    with paceline.load(folder) as llm:
        assert len(llm.generate("Once upon a time", max_tokens=3).text) > 0
