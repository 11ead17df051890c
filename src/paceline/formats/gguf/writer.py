"""A model of transformers as a GGUF file that llama.cpp runs too. Needs the `gguf` package.

llama.cpp is given token ids by some callers; only who works with text needs the vocabulary (`vocabulary`) too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from paceline.errors import ConfigError
from paceline.formats.blocks import BlockType
from paceline.formats.gguf.kinds import NAMED
from paceline.formats.gguf.names import NAMINGS, ROPE_FACTOR_TENSOR, Naming
from paceline.formats.gguf.vocabulary import write_vocabulary
from paceline.formats.mixes import block_types

# What is written of which model; llama.cpp has Mistral's as llama.
_ARCHITECTURES: Final = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_OWN_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_BY_GGUF = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")  # what the package can round to
_BY_US = ("Q4_K", "Q5_K", "Q6_K")
TYPES: Final = (*_OWN_TYPES.values(), *_BY_GGUF, *_BY_US)
_ROUNDING_VERSION = 2  # of ggml's blocks


def unsupported(model: PreTrainedModel) -> str | None:
    """Why a model cannot be written here; None if it can."""
    config: Any = model.config
    if type(model).__name__ not in _ARCHITECTURES:
        return f"{type(model).__name__} is none of {', '.join(_ARCHITECTURES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope, allowed = config.rope_parameters.get("rope_type", "default"), _rope_types(model)
    if rope not in allowed:
        return f"its rotary embedding is of type {rope}, none of {', '.join(allowed)}"
    if getattr(config, "sliding_window", None):
        return f"it sees a window of {config.sliding_window}, which llama.cpp ignores"
    return None if model.dtype in _OWN_TYPES else f"its dtype is {model.dtype}"


def write_gguf(
    model: PreTrainedModel,
    path: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    type_of: Callable[[str, torch.Tensor], str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write a model for which `unsupported` is None.

    `type_of` says a matrix's type by its name in the file, the model's own where it is not given; vectors are float32.
    `advance` is called for each tensor.

    Raises:
        ConfigError: the gguf package is not installed, or there is no such type.
        ModelError: the tokenizer is of a kind that is not known here.
    """
    gguf = gguf_package()
    architecture = _architecture(model)
    writer = gguf.GGUFWriter(path, architecture)
    with closing(writer):
        _write_metadata(writer, model)
        write_vocabulary(writer, tokenizer, model)
        for name, weight in tensors(model):
            kind = _kind(name, weight, model, type_of)
            row_bytes = weight.shape[-1] // NAMED[kind].weights * NAMED[kind].num_bytes
            shape, num_bytes = (*weight.shape[:-1], row_bytes), weight.numel() // weight.shape[-1] * row_bytes
            number = gguf.GGMLQuantizationType[kind]
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), num_bytes, raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, weight in tensors(model):
            writer.write_tensor_data(encoded(weight, _kind(name, weight, model, type_of)))
            advance()


def types_of_mix(model: PreTrainedModel, mix: str) -> Callable[[str, torch.Tensor], str]:
    """What says a matrix's type by its name in the file, for a mix of `paceline.formats.mixes`."""
    naming = NAMINGS[_architecture(model)]
    matrices = [(naming.parameter(name), weight) for name, weight in tensors(model) if weight.ndim == 2]
    kinds = block_types({name: (weight.shape[0], weight.shape[1]) for name, weight in matrices}, mix)
    return lambda name, _: kinds[naming.parameter(name)].name


def gguf_package() -> Any:
    """The `gguf` package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise ConfigError('gguf is not installed; allowed: pip install "paceline[gguf]" first') from error


def encoded(weight: torch.Tensor, kind: str) -> np.ndarray:
    """A weight (rows, K) or (K,) in a type of `TYPES`: (rows, bytes of a row) uint8."""
    dtype = NAMED[kind].dtype
    if dtype is not None:
        return weight.to(dtype).contiguous().view(torch.uint8).numpy()
    if kind in _BY_US:
        from paceline.formats.rounding import quantize

        return quantize(weight.float(), BlockType[kind]).data.numpy()
    gguf, quants = gguf_package(), importlib.import_module("gguf.quants")
    rows: np.ndarray = quants.quantize(weight.float().contiguous().numpy(), gguf.GGMLQuantizationType[kind])
    return rows


def _kind(
    name: str, weight: torch.Tensor, model: PreTrainedModel, type_of: Callable[[str, torch.Tensor], str] | None
) -> str:
    """A tensor's type; the model's own for rows that are no multiple of a block."""
    if weight.ndim == 1:
        return "F32"
    kind = _OWN_TYPES[model.dtype] if type_of is None else type_of(name, weight)
    if kind not in TYPES:
        raise ConfigError(f"the type is {kind!r}; allowed: {', '.join(TYPES)}")
    return kind if weight.shape[-1] % NAMED[kind].weights == 0 else _OWN_TYPES[model.dtype]


def _architecture(model: PreTrainedModel) -> str:
    return _ARCHITECTURES[type(model).__name__]


def _rope_types(model: PreTrainedModel) -> tuple[str, ...]:
    """Fixed frequencies, unscaled attention; divisors of each frequency llama.cpp reads for llama alone."""
    return ("default", "linear", "llama3") if _architecture(model) == "llama" else ("default", "linear")


def _write_metadata(writer: Any, model: PreTrainedModel) -> None:
    writer.add_quantization_version(_ROUNDING_VERSION)
    for key, value in header(model).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(key, value)


def header(model: PreTrainedModel) -> dict[str, int | float | str]:
    """What must be known of the architecture, by GGUF key."""
    config: Any = model.config
    rope = config.rope_parameters
    fields: dict[str, int | float | str] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": _head_dim(config),
        "attention.value_length": _head_dim(config),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": _head_dim(config),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if rope.get("rope_type") == "linear":
        fields |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return {f"{_architecture(model)}.{key}": value for key, value in fields.items()}


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or int(config.hidden_size // config.num_attention_heads)


def tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """GGUF names and weights on the CPU; vectors are float32, which is what llama.cpp multiplies them in."""
    config: Any = model.config
    naming = NAMINGS[_architecture(model)]
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embedding where the file has no output layer
        target = gguf_name(naming, name)
        part = target.split(".")[-2]
        rows = permuted(weight, heads[part]) if part in naming.permuted else weight
        yield target, (rows.float() if rows.dim() == 1 else rows).detach().cpu()
    if config.rope_parameters.get("rope_type") == "llama3":
        yield ROPE_FACTOR_TENSOR, rope_factors(model)


def gguf_name(naming: Naming, name: str) -> str:
    """The GGUF name of a weight or bias that transformers calls `name`; KeyError for one that is not known."""
    module, kind = name.rsplit(".", 1)
    outer = {theirs: ours for ours, theirs in naming.outer.items()}
    if module in outer:
        return f"{outer[module]}.{kind}"
    layer, part = module.removeprefix(f"{naming.layers}.").split(".", 1)
    return f"blk.{int(layer)}.{ {theirs: ours for ours, theirs in naming.inner.items()}[part] }.{kind}"


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Query or key rows (heads * D, ...) in llama.cpp's order within each head.

    The rotary embedding turns rows i and i + D/2 of a head together; llama.cpp wants such a pair side by side,
    at 2 i and 2 i + 1. Queries and keys are reordered alike, so their products stay.
    """
    pairs = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def rope_factors(model: PreTrainedModel) -> torch.Tensor:
    """(D/2,) divisors of the plain rotary frequencies; ones where the model has plain ones."""
    config: Any = model.config
    width = _head_dim(config)
    powers = torch.arange(0, width, 2, dtype=torch.float32) / width
    plain = torch.pow(config.rope_parameters["rope_theta"], -powers)
    actual: torch.Tensor = model.model.rotary_emb.inv_freq
    return plain / actual.float().cpu()
