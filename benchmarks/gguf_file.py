"""A Llama of transformers as a GGUF file for llama.cpp: the same weights in the same number format.

llama.cpp is given token ids; only a server, which answers in text, needs the vocabulary too. Needs the `gguf` package.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedModel

_NORMAL, _CONTROL = 1, 3  # llama.cpp's kinds of tokens
_ROPE_TYPES = ("default", "linear", "llama3")  # fixed frequencies, unscaled attention
_FORMATS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def unsupported(model: PreTrainedModel) -> str | None:
    """Why a model cannot be written here; None if it can."""
    config = model.config
    if not isinstance(model, LlamaForCausalLM):
        return f"{type(model).__name__} is not LlamaForCausalLM"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    if config.rope_parameters.get("rope_type", "default") not in _ROPE_TYPES:
        return f"its rotary embedding is of type {config.rope_parameters['rope_type']}"
    return None if model.dtype in _FORMATS else f"its dtype is {model.dtype}"


def write_gguf(model: PreTrainedModel, path: Path, tokenizer: Path | None = None) -> None:
    """Write a model for which `unsupported` is None, with the vocabulary of a tokenizer.json if one is given."""
    gguf = importlib.import_module("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        _write_vocabulary(writer, tokenizer)
    for key, value in header(model.config).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for name, weight in tensors(model):
        kind = gguf.GGMLQuantizationType[_FORMATS[weight.dtype]]
        writer.add_tensor(name, weight.contiguous().view(torch.uint8).numpy(), raw_dtype=kind)
    with closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _write_vocabulary(writer: Any, path: Path) -> None:
    """The bundled model's kind: byte-level BPE that cuts digits apart, which llama.cpp knows from SmolLM."""
    parts = json.loads(path.read_text(encoding="utf-8"))
    special = {token["id"] for token in parts["added_tokens"]}
    vocabulary = sorted(parts["model"]["vocab"].items(), key=lambda entry: entry[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([_CONTROL if index in special else _NORMAL for _, index in vocabulary])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in parts["model"]["merges"]])
    writer.add_eos_token_id(min(special))
    writer.add_add_bos_token(False)


def header(config: Any) -> dict[str, int | float]:
    """What llama.cpp must know of the architecture, by GGUF key."""
    return {
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }


def tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """GGUF names and weights on the CPU; vectors are float32, which is what llama.cpp multiplies them in."""
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embedding where the file has no output layer
        target = gguf_name(name)
        part = target.split(".")[-2]
        rows = permuted(weight, heads[part]) if part in heads else weight
        yield target, (rows.float() if rows.dim() == 1 else rows).detach().cpu()
    factors = rope_factors(model)
    if not torch.allclose(factors, torch.ones_like(factors), rtol=1e-5):
        yield "rope_freqs.weight", factors


def gguf_name(name: str) -> str:
    """The GGUF name of a weight or bias that transformers calls `name`; KeyError for one that Llama has not."""
    module, kind = name.rsplit(".", 1)
    if module in _OUTER:
        return f"{_OUTER[module]}.{kind}"
    layer, part = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{int(layer)}.{_INNER[part]}.{kind}"


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows (heads * D, ...) in llama.cpp's order within each head.

    The rotary embedding turns rows i and i + D/2 of a head together; llama.cpp wants such a pair side by side,
    at 2 i and 2 i + 1. Queries and keys are reordered alike, so their products stay.
    """
    pairs = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def rope_factors(model: PreTrainedModel) -> torch.Tensor:
    """(D/2,) divisors of the plain rotary frequencies; ones where the model has plain ones."""
    config = model.config
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    plain = torch.pow(config.rope_parameters["rope_theta"], -powers)
    actual: torch.Tensor = model.model.rotary_emb.inv_freq
    return plain / actual.float().cpu()
