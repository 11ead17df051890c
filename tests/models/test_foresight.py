"""What a configuration alone says of a model is what load finds out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import paceline
from exactness.models import ARCHITECTURES, EXPERTS, build
from models.families import kernels, tiny
from paceline.cli import app
from paceline.model import foresight
from paceline.model.foresight import Foresight, foresee
from paceline.model.loading import parse_dtype
from paceline.native.library import library

CPU = torch.device("cpu")
KNOWN = {**ARCHITECTURES, **(EXPERTS if library() is not None else {})}


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def alone(folder: Path, target: Path) -> Path:
    """The configuration without the weights."""
    target.mkdir()
    (target / "config.json").write_text((folder / "config.json").read_text())
    return target


def agree(seen: Foresight, llm: paceline.LLM) -> None:
    info, decoder = llm.info, llm.target.decoder
    assert info is not None
    assert (seen.refusal, seen.unseen) == ("", "")
    assert seen.parts is not None
    assert (seen.architecture, seen.num_parameters) == (info.architecture, info.num_parameters)
    assert (seen.parts.vocab_size, seen.parts.max_length) == (info.vocab_size, info.max_length)
    assert (seen.path, seen.dtype) == (info.numerics["path"], info.numerics["dtype"])
    layers = decoder.pool.layers
    assert seen.cache_bytes == sum(
        (c.keys[0, :, 0].numel() + c.values[0, :, 0].numel()) * c.keys.itemsize for c in layers
    )
    assert (seen.state_bytes > 0) == (decoder.pool.states is not None)


@pytest.mark.parametrize("architecture", sorted(KNOWN))
def test_what_is_foreseen_is_what_load_finds(architecture: str, tmp_path: Path) -> None:
    folder = saved(build(architecture), tmp_path / "whole")
    seen = foresee(alone(folder, tmp_path / "alone"), "auto", CPU)
    with paceline.load(folder, cache_tokens=1024) as llm:
        agree(seen, llm)


def test_states_are_foreseen(tmp_path: Path) -> None:
    layers = {
        "layer_types": ["conv", "full_attention", "conv"],
        "num_hidden_layers": 3,
        "block_auto_adjust_ff_dim": False,
    }
    folder = saved(tiny("lfm2", **layers), tmp_path / "whole")
    seen = foresee(alone(folder, tmp_path / "alone"), "auto", CPU)
    with paceline.load(folder, cache_tokens=1024) as llm:
        agree(seen, llm)
        states = llm.target.decoder.pool.states
        assert states is not None
        assert seen.state_bytes == sum(states._shapes.num_bytes)


@pytest.mark.skipif(library() is None, reason="weights that are packed by oneDNN are there twice")
@pytest.mark.parametrize("dtype", ["auto", "float32", "int8", "int4"])
def test_bytes_of_weights_are_foreseen(dtype: str) -> None:
    seen = foresee("paceline-tiny", parse_dtype(dtype), CPU)
    with paceline.load("paceline-tiny", dtype=dtype) as llm:
        assert llm.info is not None
        assert seen.weight_bytes == pytest.approx(llm.info.weight_bytes, rel=0.03)


def test_experts_that_are_not_chosen_are_not_read(tmp_path: Path) -> None:
    sizes = {"num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": False}
    model = tiny("mixtral", **sizes)
    seen = foresee(alone(saved(model, tmp_path / "whole"), tmp_path / "alone"), torch.float32, CPU)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    embedding = model.get_input_embeddings().weight.numel()
    rest = sum(p.numel() for p in model.parameters()) - experts - embedding
    assert seen.read_bytes == pytest.approx(4 * (rest + experts * 2 / 8), rel=1e-6)


def test_an_encoder_is_not_read_for_each_token(tmp_path: Path) -> None:
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = tiny("bart", encoder_layers=3, decoder_layers=2, d_model=32, **heads)
    seen = foresee(alone(saved(model, tmp_path / "whole"), tmp_path / "alone"), torch.float32, CPU)
    encoder = sum(p.numel() for name, p in model.get_encoder().named_parameters() if "embed_tokens" not in name)
    assert seen.read_bytes == 4 * (sum(p.numel() for p in model.parameters()) - encoder)


def test_what_load_refuses_is_said(tmp_path: Path) -> None:
    def seen(name: str, **says: Any) -> Foresight:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(says))
        return foresee(folder, "auto", CPU)

    rwkv = seen("rwkv", model_type="rwkv", num_hidden_layers=2, hidden_size=32, vocab_size=97)
    assert rwkv.verdict.startswith("refused: ")
    assert "RwkvSelfAttention keeps a state of its own" in rwkv.refusal
    quantised = seen("quantised", model_type="llama", quantization_config={"quant_method": "aqlm"}, num_hidden_layers=2)
    assert "quantised by 'aqlm'; allowed: auto-round, awq" in quantised.refusal
    assert quantised.weight_bytes == 0
    with pytest.raises(paceline.ModelError, match="cannot read the configuration of"):
        foresee(tmp_path, "auto", CPU)
    with pytest.raises(paceline.ModelError, match="has no language-model head"):
        seen("head", model_type="llama", architectures=["LlamaForSequenceClassification"])


def test_quantised_weights_are_refused_without_kernels() -> None:
    with kernels("0"):
        seen = foresee("paceline-tiny", "int8", CPU)
    assert seen.verdict.startswith("refused: quantised weights need the native kernels")


def test_layers_that_cannot_be_asked_are_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    def looks_at_values(self: LlamaMLP, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum())

    monkeypatch.setattr(LlamaMLP, "forward", looks_at_values)
    assert foresee("paceline-tiny", "auto", CPU).parts is not None  # a small one is given weights
    monkeypatch.setattr(foresight, "_SMALL", 1000)
    seen = foresee("paceline-tiny", "auto", CPU)
    assert seen.refusal == ""
    assert seen.verdict.startswith("not foreseen: its layers cannot be asked without weights (")


def test_the_command_says_it() -> None:
    said = CliRunner().invoke(app, ["models", "paceline-tiny", "--explain"], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    for words in ("LlamaForCausalLM", "MB for 1,000 tokens", "to be expected exact on", "tokens/s: a token reads"):
        assert words in said.output
