"""Layers that predict further ahead are read from their targets' folders by each family's names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from heads import reference
from heads.reference import Tensors
from heads.writers import VOCAB, WIDE, speculators, write, write_sharded
from paceline.errors import ModelError
from paceline.heads.dense import DenseStep, causal
from paceline.heads.families import family_of
from paceline.heads.formats import open_head
from paceline.model.interface import answered_by

ROWS, DEPTH = 9, 2
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDE,
    "intermediate_size": 24,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,
}
_DELTA = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MOE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 7, "shared_expert_intermediate_size": 5}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 7, "n_group": 1, "topk_group": 1}
_LATENT = {"q_lora_rank": 6, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
_LATENT |= {"num_key_value_heads": 2}

QWEN = {
    "proj": "mtp.fc.weight",
    "token": "mtp.pre_fc_norm_embedding.weight",
    "hidden": "mtp.pre_fc_norm_hidden.weight",
    "final": "mtp.norm.weight",
    "layer": "mtp.layers.0.",
}
DEEPSEEK = {
    "proj": f"model.layers.{DEPTH}.eh_proj.weight",
    "token": f"model.layers.{DEPTH}.enorm.weight",
    "hidden": f"model.layers.{DEPTH}.hnorm.weight",
    "final": f"model.layers.{DEPTH}.shared_head.norm.weight",
    "layer": f"model.layers.{DEPTH}.",
}


def mimo(at: str) -> dict[str, str]:
    return {
        "proj": f"{at}input_proj.weight",
        "token": f"{at}token_layernorm.weight",
        "hidden": f"{at}hidden_layernorm.weight",
        "final": f"{at}final_layernorm.weight",
        "layer": at,
    }


# name -> the class's model_type, its configuration, names in the file, order in the mixing, whether chains are normed
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, str], str, bool]] = {
    "qwen3_next": ("qwen3_next", {**COMMON, **_DELTA, **_MOE}, QWEN, "eh", True),
    "qwen3_5": ("qwen3_5_text", {**COMMON, **_DELTA}, QWEN, "eh", True),
    "deepseek_v3": ("deepseek_v3", {**COMMON, **_ROUTED, **_LATENT, "first_k_dense_replace": 1}, DEEPSEEK, "eh", False),
    "glm4_moe": ("glm4_moe", {**COMMON, **_ROUTED, "head_dim": 8, "first_k_dense_replace": 1}, DEEPSEEK, "eh", False),
    "mimo": ("qwen2", COMMON, mimo("model.mtp_layers.0."), "he", True),
}


class Written:
    """A layer of a family in the names of its file, and transformers' own layer as the reference."""

    def __init__(self, kind: str, values: dict[str, Any], names: dict[str, str]) -> None:
        torch.manual_seed(3)
        self.config: PreTrainedConfig = AutoConfig.for_model(kind, **values)
        self.names, family = names, family_of(self.config)
        self.target = AutoModelForCausalLM.from_config(copy.deepcopy(self.config)).eval().requires_grad_(False)
        own = copy.deepcopy(self.config)
        own._attn_implementation = own._experts_implementation = "eager"
        index = 1 if getattr(own, "layer_types", None) else DEPTH if names is DEEPSEEK else 0
        self.layer = family.layer(own, index).eval().requires_grad_(False)
        self.rotary = family.rotary(own)
        self.is_zero_centred = hasattr(own, "linear_num_key_heads")
        self.weights: Tensors = {names["proj"]: torch.randn(WIDE, 2 * WIDE) * 0.3}
        for name in ("token", "hidden", "final"):
            self.weights[names[name]] = torch.randn(WIDE) * 0.3 + (not self.is_zero_centred)
        for name, weight in self.layer.state_dict().items():
            torch.nn.init.normal_(weight, std=0.3, mean=float("norm" in name and not self.is_zero_centred))
            self.weights |= _split(names["layer"] + name, weight)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return reference.rms(x, self.weights[self.names[name]] + self.is_zero_centred)

    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor, order: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(before the last norm, logits)."""
        embedded = self.target.get_input_embeddings()(tokens)
        parts = {"e": self.norm(embedded, "token"), "h": self.norm(hidden, "hidden")}
        x = (torch.cat([parts[one] for one in order], -1) @ self.weights[self.names["proj"]].T)[None]
        places = torch.arange(len(tokens))[None]
        mask = torch.full((ROWS, ROWS), -torch.inf).triu(1)[None, None]
        with torch.inference_mode():
            around = self.rotary(x, places)
            out = self.layer(x, attention_mask=mask, position_ids=places, position_embeddings=around)[0]
            return out, self.target.get_output_embeddings()(self.norm(out, "final"))


def _split(name: str, weight: torch.Tensor) -> Tensors:
    """A stack of experts as checkpoints have it: each on its own."""
    if not re.search(r"experts\.(gate_up|down)_proj$", name):
        return {name: weight.clone()}
    place, found = name.rpartition(".")[0], {}
    for index, expert in enumerate(weight):
        parts = expert.chunk(2) if "gate_up" in name else [expert]
        kinds = ("gate", "up") if "gate_up" in name else ("down",)
        found |= {f"{place}.{index}.{kind}_proj.weight": p.clone() for kind, p in zip(kinds, parts, strict=True)}
    return found


def said(folder: Path, written: Written, hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[Any, Any, Any]:
    found = open_head(folder)
    assert found.kind == "mtp"
    found.module.bind(written.target)
    places = torch.arange(ROWS)
    with torch.inference_mode(), answered_by(DenseStep(causal(torch.zeros_like(places), places))):
        states, logits = found.module(tokens[None], hidden[None], places[None])
    return found.module, states[0], logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_inside_a_target(family: str, tmp_path: Path) -> None:
    kind, values, names, order, is_normed = FAMILIES[family]
    written = Written(kind, values, names)
    others = {f"model.layers.{DEPTH - 1}.input_layernorm.weight": torch.ones(WIDE), "lm_head.weight": torch.ones(2, 2)}
    if names is DEEPSEEK:
        others |= {f"{names['layer']}embed_tokens.weight": torch.ones(2, 2)}
        others |= {f"{names['layer']}shared_head.head.weight": torch.ones(2, 2)}
    config = {**values, "model_type": family if family != "qwen3_5" else "qwen3_5_text"}
    if family == "qwen3_5":  # with pictures: the language model's part is an object of its own
        config = {"model_type": "qwen3_5", "text_config": config}
    folder = write_sharded(tmp_path, config, written.weights | others)
    hidden, tokens = torch.randn(ROWS, WIDE), torch.randint(VOCAB, (ROWS,))
    head, states, logits = said(folder, written, hidden, tokens)
    theirs, their_logits = written(hidden, tokens, order)
    assert head.config.taps == (DEPTH + 1,)
    torch.testing.assert_close(logits, their_logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(states, written.norm(theirs, "final") if is_normed else theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "more", "order"), [("qwen2", {}, "he"), ("qwen3_next", {**_DELTA, **_MOE}, "eh")])
def test_the_layer_by_speculators(kind: str, more: dict[str, Any], order: str, tmp_path: Path) -> None:
    written = Written(kind, {**COMMON, **more}, mimo("mtp_layers.0."))
    config = speculators("mtp", num_nextn_predict_layers=1)
    config["transformer_layer_config"] = {**COMMON, **more, "model_type": kind}
    hidden, tokens = torch.randn(ROWS, WIDE), torch.randint(VOCAB, (ROWS,))
    _, _, logits = said(write(tmp_path, config, written.weights), written, hidden, tokens)
    torch.testing.assert_close(logits, written(hidden, tokens, order)[1], rtol=1e-3, atol=1e-3)


def without(name: str) -> Callable[[Tensors], Any]:
    return lambda weights: weights.pop(next(one for one in weights if name in one))


@pytest.mark.parametrize("lost", ["pre_fc_norm_hidden", "experts.1.up_proj", "self_attn.q_norm"])
def test_a_layer_that_is_not_whole_is_refused(lost: str, tmp_path: Path) -> None:
    kind, values, names, *_ = FAMILIES["qwen3_next"]
    written = Written(kind, values, names)
    without(lost)(written.weights)
    with pytest.raises(ModelError, match=r"lacks|not whole"):
        open_head(write(tmp_path, {**values, "model_type": kind}, written.weights))
