"""What GGUF files call a model's tensors, and what transformers calls them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from paceline.errors import ModelError

ROPE_FACTORS: Final = "rope_freqs"  # (D / 2,) float32: divisors of the plain rotary frequencies theta^(-2 i / D)
ROPE_FACTOR_TENSOR: Final = "rope_freqs.weight"
PHI3_FACTOR_TENSORS: Final = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
_BLOCK = re.compile(r"blk\.(?P<layer>\d{1,6})\.(?P<part>[a-z0-9_.]+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Naming:
    """Names of one architecture, and the changes of its values that a file's writer has made."""

    inner: dict[str, str]
    outer: dict[str, str]
    layers: str = "model.layers"
    permuted: frozenset[str] = frozenset()  # rows of each head in the order of pairs that are turned together
    shifted: bool = False  # norms are stored with 1 added
    transposed: frozenset[str] = frozenset()  # transformers holds these (in, out)

    def parameter(self, tensor: str) -> str:
        """The name in transformers of a tensor.

        Raises:
            ModelError: a tensor that the architecture has not.
        """
        match = _BLOCK.fullmatch(tensor)
        if match is not None and match["part"] in self.inner:
            return f"{self.layers}.{int(match['layer'])}.{self.inner[match['part']]}.{match['kind']}"
        module, _, kind = tensor.rpartition(".")
        if match is None and module in self.outer and kind in ("weight", "bias"):
            return f"{self.outer[module]}.{kind}"
        raise ModelError(f"the tensor {tensor!r} is not known in this architecture; allowed: {self._words()}")

    def _words(self) -> str:
        return ", ".join([*self.outer, *(f"blk.N.{part}" for part in self.inner)])


def layer_of(tensor: str) -> int | None:
    """The layer that a tensor's name says; None for one that is no layer's."""
    match = _BLOCK.fullmatch(tensor)
    return None if match is None else int(match["layer"])


def part_of(tensor: str) -> str:
    """A tensor's name without its layer, and without what it is of it: `attn_q` of `blk.3.attn_q.bias`."""
    match = _BLOCK.fullmatch(tensor)
    return tensor.rpartition(".")[0] if match is None else match["part"]


_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_LLAMA = {**_ATTENTION, **_MLP, "ffn_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA2 = {
    **_ATTENTION,
    **_MLP,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2_OUTER = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
# Experts are stacked in both, (E, out, in); transformers has gate and up in one parameter, and calls neither a weight.
GATE_EXPERTS: Final = "ffn_gate_exps"
UP_EXPERTS: Final = "ffn_up_exps"
DOWN_EXPERTS: Final = "ffn_down_exps"
_QWEN3_MOE = {
    **_ATTENTION,
    **_HEAD_NORMS,
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    GATE_EXPERTS: "mlp.experts.gate_up_proj",
    UP_EXPERTS: "mlp.experts.gate_up_proj",
    DOWN_EXPERTS: "mlp.experts.down_proj",
}
_LLAMA_NAMING = Naming(_LLAMA, _OUTER, permuted=frozenset({"attn_q", "attn_k"}))

NAMINGS: Final = {
    "llama": _LLAMA_NAMING,
    "mistral": _LLAMA_NAMING,
    "qwen2": Naming(_LLAMA, _OUTER),
    "qwen3": Naming({**_LLAMA, **_HEAD_NORMS}, _OUTER),
    "qwen3moe": Naming(_QWEN3_MOE, _OUTER),
    "gemma2": Naming(_GEMMA2, _OUTER, shifted=True),
    "gemma3": Naming({**_GEMMA2, **_HEAD_NORMS}, _OUTER, shifted=True),
    "phi3": Naming(_PHI3, _OUTER),
    "gpt2": Naming(
        _GPT2,
        _GPT2_OUTER,
        layers="transformer.h",
        transposed=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
    ),
}
