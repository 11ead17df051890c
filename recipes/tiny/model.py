"""The two model shapes, their loss, and how they are saved."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHAPES: dict[str, dict[str, int]] = {
    "paceline-tiny": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 688,
    },
    "paceline-tiny-draft": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 448,
    },
}


def build(name: str, seed: int) -> LlamaForCausalLM:
    """A fresh model in fp32; projections back into the residual stream start smaller."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **SHAPES[name],
        vocab_size=4096,
        max_position_embeddings=2048,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.02,
    )
    model = LlamaForCausalLM(config).float()
    scale = (2 * config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.mul_(scale)
            block.mlp.down_proj.weight.mul_(scale)
    return model


def hidden_states(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    return model.model(input_ids=tokens, use_cache=False).last_hidden_state


def logits(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    return F.linear(hidden_states(model, tokens), model.lm_head.weight)


def next_token_loss(model: LlamaForCausalLM, tokens: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits(model, tokens).flatten(0, 1).float(), targets.flatten())


def parameter_count(model: LlamaForCausalLM) -> int:
    return sum(p.numel() for p in model.parameters())  # tied weights are one parameter


def shape(model: LlamaForCausalLM) -> str:
    c = model.config
    heads = f"{c.num_attention_heads} heads on {c.num_key_value_heads} key-value heads"
    return f"hidden {c.hidden_size}, {c.num_hidden_layers} layers, {heads}, FFN {c.intermediate_size}"


def install(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The model as bf16 safetensors with everything that `from_pretrained` wants."""
    config = LlamaConfig.from_dict(model.config.to_dict() | {"dtype": "bfloat16"})
    clone = LlamaForCausalLM(config)
    clone.load_state_dict(model.state_dict())
    clone = clone.to(torch.bfloat16)
    clone.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    clone.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> LlamaForCausalLM:
    """The installed weights, widened to fp32: what every figure in the model cards is measured on."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
