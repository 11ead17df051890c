"""Heads of random weights, laid out in folders as each writer documents it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from heads.reference import HEAD_SIZE, HEADS, KV_HEADS, Tensors

VOCAB, WIDE, INNER, NUM_TAPS = 48, 16, 24, 3

SIZES: dict[str, Any] = {
    "hidden_size": WIDE,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_SIZE,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
}


def write(folder: Path, config: dict[str, Any], weights: Tensors, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / file)
    return folder


def write_sharded(folder: Path, config: dict[str, Any], weights: Tensors) -> Path:
    """In two files and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    files = {name: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        save_file({name: weights[name].contiguous() for name in files if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


class Drawn:
    """Random weights."""

    def __init__(self, seed: int = 0, scale: float = 0.3) -> None:
        self._generator, self._scale = torch.Generator().manual_seed(seed), scale

    def matrix(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self._generator) * self._scale

    def norm(self, size: int) -> torch.Tensor:
        return 1 + 0.3 * torch.randn(size, generator=self._generator)

    def layer(self, at: str, fan_in: int = WIDE, is_qwen3: bool = False, has_input_norm: bool = True) -> Tensors:
        """A decoder layer, the projections of its attention taking `fan_in` numbers."""
        found = {
            f"{at}self_attn.q_proj.weight": self.matrix(HEADS * HEAD_SIZE, fan_in),
            f"{at}self_attn.k_proj.weight": self.matrix(KV_HEADS * HEAD_SIZE, fan_in),
            f"{at}self_attn.v_proj.weight": self.matrix(KV_HEADS * HEAD_SIZE, fan_in),
            f"{at}self_attn.o_proj.weight": self.matrix(WIDE, HEADS * HEAD_SIZE),
            f"{at}mlp.gate_proj.weight": self.matrix(INNER, WIDE),
            f"{at}mlp.up_proj.weight": self.matrix(INNER, WIDE),
            f"{at}mlp.down_proj.weight": self.matrix(WIDE, INNER),
            f"{at}post_attention_layernorm.weight": self.norm(WIDE),
        }
        if has_input_norm:
            found[f"{at}input_layernorm.weight"] = self.norm(WIDE)
        if is_qwen3:
            found |= {f"{at}self_attn.{name}_norm.weight": self.norm(HEAD_SIZE) for name in "qk"}
        return found

    def eagle3(self, first: str, vocab: int = VOCAB) -> Tensors:
        """EAGLE-3 with one layer and a language-model head of its own."""
        return {
            "fc.weight": self.matrix(WIDE, NUM_TAPS * WIDE),
            **self.layer(first, 2 * WIDE),
            f"{first}hidden_norm.weight": self.norm(WIDE),
            "norm.weight": self.norm(WIDE),
            "lm_head.weight": self.matrix(vocab, WIDE),
        }

    def block(self, num_layers: int = 2, num_taps: int = 2) -> Tensors:
        """DFlash, which brings neither embedding nor language-model head."""
        found = {"fc.weight": self.matrix(WIDE, num_taps * WIDE), "hidden_norm.weight": self.norm(WIDE)}
        for index in range(num_layers):
            found |= self.layer(f"layers.{index}.", is_qwen3=True)
        return {**found, "norm.weight": self.norm(WIDE)}

    def kept(self, size: int) -> torch.Tensor:
        """Tokens of a draft vocabulary, ascending."""
        return torch.randperm(VOCAB, generator=self._generator)[:size].sort().values

    def tokens(self, count: int) -> torch.Tensor:
        return torch.randint(VOCAB, (count,), generator=self._generator)


def raw_eagle3(**more: Any) -> dict[str, Any]:
    return {**SIZES, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1, **more}


def speculators(kind: str, model_type: str = "llama", num_layers: int = 1, **more: Any) -> dict[str, Any]:
    layers = {**SIZES, "model_type": model_type, "num_hidden_layers": num_layers}
    return {
        "speculators_model_type": kind,
        "speculators_version": "0.5.0",
        "speculators_config": {"algorithm": kind, "verifier": {"name_or_path": "org/target", "architectures": []}},
        "transformer_layer_config": layers,
        "tie_word_embeddings": False,
        **more,
    }
