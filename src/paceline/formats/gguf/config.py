"""From a file's metadata to the configuration that transformers makes the model of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from paceline.errors import ModelError, first_line
from paceline.formats.gguf.ends import special_ids
from paceline.formats.gguf.metadata import Metadata
from paceline.formats.gguf.names import layer_of
from paceline.formats.gguf.reader import Reader
from paceline.formats.gguf.rope import phi3_factors, rope_parameters

MAX_LAYERS: Final = 1024
MAX_WIDTH: Final = 1 << 20  # of hidden states, heads together, and the feed-forward part
# What changes a forward and no configuration here says, with the values that change nothing.
_FOREIGN: Final = {
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "attention.scale": (0.0,),
    "attention.output_scale": (0.0, 1.0),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "expert_weights_scale": (0.0, 1.0),
    "rope.scaling.alpha": (0.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}


@dataclass(frozen=True)
class Facts:
    """What every architecture's metadata says."""

    architecture: str
    metadata: Metadata
    reader: Reader

    def size(self, key: str, default: int | None = None, most: int = MAX_WIDTH) -> int:
        """A number of something, at least 1; of an array, whose layers must not differ, the one that it repeats."""
        name = f"{self.architecture}.{key}"
        if not self.metadata.is_array(name):
            return self.metadata.integer(name, default, 1, most)
        found = set(self.metadata.integers(name))
        if len(found) != 1 or not 1 <= min(found) <= most:
            raise ModelError(
                f"{self.metadata.name}: {name} is {sorted(found)[:8]} by layer; allowed: one for all, 1 to {most}"
            )
        return found.pop()

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the architecture's."""
        return self.metadata.number(f"{self.architecture}.{key}", default)

    def has(self, tensor: str) -> bool:
        """Whether the file has a tensor."""
        return tensor in self.reader

    @property
    def num_layers(self) -> int:
        """Layers without those that predict further tokens, which `block_count` counts too."""
        count = self.size("block_count", most=MAX_LAYERS)
        extra = self.metadata.integer(f"{self.architecture}.nextn_predict_layers", 0, 0, count - 1)
        found = {layer_of(tensor.name) for tensor in self.reader} - {None}
        if count - extra > len(found):
            raise ModelError(
                f"{self.metadata.name}: {self.architecture}.block_count is {count}; "
                f"allowed: {len(found)}, the layers that have tensors"
            )
        return count - extra

    @property
    def window(self) -> int | None:
        """Positions that a sliding window sees; None where there is none."""
        return self.metadata.integer(f"{self.architecture}.attention.sliding_window", 0) or None

    @property
    def head_dim(self) -> int:
        """Width of a head; keys and values have the same."""
        heads, hidden = self.size("attention.head_count"), self.size("embedding_length")
        width = self.size("attention.key_length", max(1, hidden // heads))
        values = self.size("attention.value_length", width)
        if values != width:
            raise ModelError(f"{self.metadata.name} has keys of {width} and values of {values}; allowed: equal widths")
        return width

    def rope(self) -> dict[str, Any]:
        """Parameters of the rotary embedding, which turns whole heads."""
        turned = self.size("rope.dimension_count", self.head_dim)
        if turned != self.head_dim or turned % 2:
            raise ModelError(
                f"{self.metadata.name} turns {turned} of {self.head_dim} in a head; allowed: all of an even number"
            )
        return rope_parameters(self.metadata, self.architecture, self.size("context_length", most=2**31 - 1))

    def common(self) -> dict[str, Any]:
        """What configurations of llama's family share."""
        return {
            "vocab_size": self.reader.tensor("token_embd.weight").shape[0],
            "hidden_size": self.size("embedding_length"),
            "intermediate_size": self.size("feed_forward_length"),
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.size("attention.head_count"),
            "num_key_value_heads": self.size("attention.head_count_kv", self.size("attention.head_count")),
            "max_position_embeddings": self.size("context_length", most=2**31 - 1),
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": not self.has("output.weight"),
        }


def read_config(reader: Reader) -> PreTrainedConfig:
    """The configuration of a file's model; its end tokens are all that the file knows of.

    Raises:
        ModelError: an architecture that is not known here, or metadata that none of its models has.
    """
    metadata = reader.metadata
    architecture = metadata.text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{metadata.name} is of the architecture {architecture!r}; allowed: {', '.join(ARCHITECTURES)}"
        )
    facts = Facts(architecture, metadata, reader)
    _check_foreign(facts)
    kind, fields = ARCHITECTURES[architecture](facts)
    try:
        config = kind(**fields, **special_ids(metadata, facts.reader.tensor("token_embd.weight").shape[0]))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{metadata.name}: {architecture} with what its metadata says: {first_line(error)}") from error
    config.architectures = [_MODELS[kind]]
    return config


def _check_foreign(facts: Facts) -> None:
    for key, harmless in _FOREIGN.items():
        value = facts.number(key, 0.0)
        if value not in harmless:
            raise ModelError(
                f"{facts.metadata.name}: {facts.architecture}.{key} is {value}, which is not computed here; "
                f"allowed: {', '.join(map(str, harmless))}"
            )
    if facts.architecture != "qwen3moe" and facts.metadata.integer(f"{facts.architecture}.expert_count", 0):
        raise ModelError(
            f"{facts.metadata.name} is a mixture of experts of {facts.architecture}; allowed: one of qwen3moe"
        )


_Parts = tuple[type[PreTrainedConfig], dict[str, Any]]


def _llama(facts: Facts) -> _Parts:
    fields = {**facts.common(), "head_dim": facts.head_dim, "rope_parameters": facts.rope()}
    if facts.architecture == "mistral" or facts.window:
        return MistralConfig, {**fields, "sliding_window": facts.window}
    biases = {"attention_bias": facts.has("blk.0.attn_q.bias"), "mlp_bias": facts.has("blk.0.ffn_up.bias")}
    return LlamaConfig, {**fields, **biases}


def _qwen2(facts: Facts) -> _Parts:
    return Qwen2Config, {**facts.common(), "head_dim": facts.head_dim, "rope_parameters": facts.rope()}


def _qwen3(facts: Facts) -> _Parts:
    bias = {"attention_bias": facts.has("blk.0.attn_q.bias")}
    return Qwen3Config, {**facts.common(), "head_dim": facts.head_dim, "rope_parameters": facts.rope(), **bias}


def _qwen3_moe(facts: Facts) -> _Parts:
    _, fields = _qwen3(facts)
    experts = {
        "moe_intermediate_size": facts.size("expert_feed_forward_length"),
        "num_experts": facts.size("expert_count", most=4096),
        "num_experts_per_tok": facts.size("expert_used_count", most=facts.size("expert_count", most=4096)),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    return Qwen3MoeConfig, {**fields, **experts}


def _gemma(facts: Facts, pattern: int, shared_scale_layers: int) -> dict[str, Any]:
    """What Gemma 2 and 3 share: every so many layers one sees everything, the others a window.

    The scale of queries is not in the files: as in llama.cpp the largest model is known by its number of layers.
    """
    fields = facts.common()
    is_largest = fields["num_hidden_layers"] == shared_scale_layers
    scale = fields["hidden_size"] // fields["num_attention_heads"] if is_largest else facts.head_dim
    return {
        **fields,
        "head_dim": facts.head_dim,
        "query_pre_attn_scalar": scale,
        "sliding_window": facts.window or fields["max_position_embeddings"],  # transformers asks, slide a layer or not
        "layer_types": _layer_types(facts, fields["num_hidden_layers"], pattern),
        "final_logit_softcapping": facts.number("final_logit_softcapping", 0.0) or None,
        "attn_logit_softcapping": facts.number("attn_logit_softcapping", 0.0) or None,
    }


def _layer_types(facts: Facts, num_layers: int, pattern: int) -> list[str]:
    key = f"{facts.architecture}.attention.sliding_window_pattern"
    if facts.window is None:
        slides = [False] * num_layers
    elif facts.metadata.is_array(key):
        slides = [bool(x) for x in facts.metadata.integers(key)[:num_layers]]
    else:
        every = facts.metadata.integer(key, pattern, 1)
        slides = [i % every < every - 1 for i in range(num_layers)]
    return ["sliding_attention" if sliding else "full_attention" for sliding in slides]


def _gemma2(facts: Facts) -> _Parts:
    fields = _gemma(facts, pattern=2, shared_scale_layers=46)
    return Gemma2Config, {**fields, "rope_parameters": facts.rope()}


def _gemma3(facts: Facts) -> _Parts:
    local = {"rope_type": "default", "rope_theta": facts.number("rope.freq_base_swa", 10_000.0)}
    ropes = {"full_attention": facts.rope(), "sliding_attention": local}
    return Gemma3TextConfig, {**_gemma(facts, pattern=6, shared_scale_layers=62), "rope_parameters": ropes}


def _phi3(facts: Facts) -> _Parts:
    fields = facts.common()
    if fields["hidden_size"] != fields["num_attention_heads"] * facts.head_dim:
        raise ModelError(f"{facts.metadata.name} has heads of {facts.head_dim}; allowed: hidden size over heads")
    rope = rope_parameters(facts.metadata, "phi3", fields["max_position_embeddings"])
    turned = facts.size("rope.dimension_count", facts.head_dim, facts.head_dim)
    rope |= {"partial_rotary_factor": turned / facts.head_dim, **phi3_factors(facts.reader)}
    original = facts.size("rope.scaling.original_context_length", fields["max_position_embeddings"], 2**31 - 1)
    extra = {"original_max_position_embeddings": original, "sliding_window": facts.window}
    return Phi3Config, {**fields, "rope_parameters": rope, **extra}


def _gpt2(facts: Facts) -> _Parts:
    return GPT2Config, {
        "vocab_size": facts.reader.tensor("token_embd.weight").shape[0],
        "n_positions": facts.size("context_length", most=2**31 - 1),
        "n_embd": facts.size("embedding_length"),
        "n_layer": facts.num_layers,
        "n_head": facts.size("attention.head_count"),
        "n_inner": facts.size("feed_forward_length"),
        "layer_norm_epsilon": facts.number("attention.layer_norm_epsilon"),
        "tie_word_embeddings": not facts.has("output.weight"),
    }


ARCHITECTURES: Final[dict[str, Callable[[Facts], _Parts]]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3_moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "gpt2": _gpt2,
}
_MODELS: Final[dict[type[PreTrainedConfig], str]] = {
    LlamaConfig: "LlamaForCausalLM",
    MistralConfig: "MistralForCausalLM",
    Qwen2Config: "Qwen2ForCausalLM",
    Qwen3Config: "Qwen3ForCausalLM",
    Qwen3MoeConfig: "Qwen3MoeForCausalLM",
    Gemma2Config: "Gemma2ForCausalLM",
    Gemma3TextConfig: "Gemma3ForCausalLM",
    Phi3Config: "Phi3ForCausalLM",
    GPT2Config: "GPT2LMHeadModel",
}
