"""A model of every architecture comes back from a file: its configuration, each weight bit for bit, its logits."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from formats.gguf.hub_models import COMMON, CONFIGS, write
from paceline.errors import ModelError
from paceline.formats.gguf import open_gguf
from paceline.formats.gguf.config import ARCHITECTURES

gguf = pytest.importorskip("gguf")

SAID_NOWHERE = {"architectures", "transformers_version", "dtype", "_name_or_path", "use_cache", "initializer_range"}


def model_of(config: Any, seed: int = 0) -> PreTrainedModel:
    """Weights that 1 can be added to and taken from again, as a norm's."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data = (torch.randn_like(parameter) * 0.3).clamp(-0.9, 0.9).bfloat16().float()
    return model


def fields(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in SAID_NOWHERE}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_comes_back(name: str, tmp_path: Path) -> None:
    model = model_of(CONFIGS[name])
    found = open_gguf(write(model, tmp_path / "model.gguf", gguf))
    assert fields(found.config) == fields(model.config)
    state = {weight.name: weight.value for weight in found.weights()}
    wanted = model.state_dict()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert state.keys() == wanted.keys() - tied
    for key, value in state.items():
        assert isinstance(value, torch.Tensor)
        assert torch.equal(value, wanted[key]), key
    again = AutoModelForCausalLM.from_config(found.config).eval()
    again.load_state_dict(state, strict=not tied)
    ids = torch.arange(1, 31).unsqueeze(0)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert (found.tokenizer(), found.num_bytes) == (None, (tmp_path / "model.gguf").stat().st_size)


def test_every_architecture_is_tried() -> None:
    assert {name.split("-")[0] for name in CONFIGS} == set(ARCHITECTURES)


def test_a_rotation_forgotten_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paceline.formats.gguf.values import Values

    monkeypatch.setattr(Values, "_ordered", lambda self, part, rows: rows)
    model = model_of(CONFIGS["llama"])
    found = open_gguf(write(model, tmp_path / "model.gguf", gguf))
    wrong = {w.name for w in found.weights() if not torch.equal(w.value, model.state_dict()[w.name])}  # type: ignore[arg-type]
    assert {name.split(".")[-2] for name in wrong} == {"q_proj", "k_proj"}


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_gemma_without_a_window_sees_everything(name: str, tmp_path: Path) -> None:
    config = deepcopy(CONFIGS[name])
    config.layer_types, config.sliding_window = ["full_attention"] * config.num_hidden_layers, None
    model = model_of(config)
    again = AutoModelForCausalLM.from_config(open_gguf(write(model, tmp_path / "model.gguf", gguf)).config).eval()
    again.load_state_dict(model.state_dict(), strict=False)
    model.config.sliding_window = 96
    ids = torch.arange(1, 31).unsqueeze(0)
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.add_tensor("token_embd.weight", torch.zeros(2, 2).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="of the architecture 'mamba'; allowed: llama, mistral, qwen2"):
        open_gguf(tmp_path / "model.gguf").config  # noqa: B018


@pytest.mark.parametrize("seed", range(4))
def test_odd_shapes(seed: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    kv_heads, shared = draw(1, 4), draw(1, 5)
    shape = {
        "hidden_size": kv_heads * shared * draw(2, 9),
        "intermediate_size": draw(1, 90),
        "num_hidden_layers": draw(1, 4),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * shared,
        "head_dim": 2 * draw(1, 20),
        "vocab_size": draw(30, 70),
    }
    model = model_of(LlamaConfig(**{**COMMON, **shape}), seed)
    found = open_gguf(write(model, tmp_path / "model.gguf", gguf))
    assert fields(found.config) == fields(model.config)
    for weight in found.weights():
        assert torch.equal(weight.value, model.state_dict()[weight.name])  # type: ignore[arg-type]
