"""What a model is, before it is trusted: which parts cannot be decoded exactly, and what its layers store.

Everything here refuses by `ModelError` in one sentence that names the part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.model import recurrence, rotary
from paceline.model.experts import is_experts
from paceline.model.interface import ATTENTION_NAME, SilentStep, run_rows
from paceline.model.picking import Picks
from paceline.model.pool import LayerShape
from paceline.model.private import adapt, has_experts
from paceline.model.quantized import quickly
from paceline.model.scanning import Scan
from paceline.model.seq2seq.attaching import attend_by, max_source_length, max_target_length
from paceline.model.states import ConvolutionShape, StateShapes
from paceline.native.library import library
from paceline.native.ops import FLOATS

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LENGTH_DEPENDENT = ("dynamic", "longrope")
# What configurations call the longest context, the most usual first.
_LIMITS = (
    *("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "max_sequence_length"),
    *("n_ctx", "model_max_length", "context_length", "seq_length", "max_seq_length"),
)
_MIX_NOTHING = ("mlp", "moe")  # types of layers in which a token sees itself alone
_RECUR = ("linear_attention", "conv", "mamba")  # in which it sees a state
_WINDOWED = ("sliding_attention", "hybrid_sliding")
_RECURRENT = re.compile(
    r"(Mamba\w*|Bamba|H1)Mixer|MambaLayer|ShortConv|DeltaNet|DeltaAttention|RecurrentBlock|LightningAttention|"
    "RwkvSelfAttention|LSTMLayer"
)
_ATTENTION = re.compile("Attention|Mixer")
_INDEXER = re.compile("Indexer$")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SAMPLE = 7  # tokens on which the logits are compared with the model's own attention


@dataclass(frozen=True)
class Anatomy:
    """What load learns by running the model once."""

    layers: list[LayerShape]
    states: StateShapes  # of recurrent layers
    windows: list[int]  # positions that each layer sees; 0 is all
    vocab_size: int
    max_length: int
    note: str  # what was pinned to keep bits stable; empty if nothing
    has_experts: bool
    max_source_length: int = 0  # tokens of a source, of an encoder-decoder


class _Recorder(SilentStep):
    """Answers the model's layers and writes down what they store and which window they ask for."""

    def __init__(self) -> None:
        self.layers: list[LayerShape] = []
        self.states = StateShapes()
        self.windows: list[int] = []
        self._picks: list[Picks] = []  # layers may share one
        self.num_sources = 0  # calls that look at a source

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        self.layers.append(LayerShape(key.shape[1], key.shape[2], value.shape[2]))
        self.windows.append(how["window"] or how.get("chunk", 0))
        picks = how.get("picks")
        if picks is not None and picks not in self._picks:
            self._picks.append(picks)
            self.layers.append(LayerShape(1, picks.key.shape[2], 1))  # of the keys to pick by
            self.windows.append(0)
        return super().attend(query, key, value)

    def attend_source(self, query: torch.Tensor, **how: Any) -> torch.Tensor:
        self.num_sources += 1
        return query.new_zeros(*query.shape[:2], self.layers[-1].value_dim)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        self.states.convolutions.append(ConvolutionShape(*weight.shape))
        return super().convolve(x, weight, bias)

    def scan(self, given: Scan) -> torch.Tensor:
        self.states.scans.append(given.shape)
        return super().scan(given)


def anatomy(model: PreTrainedModel, device: torch.device | None = None) -> Anatomy:
    """What `model` stores per layer, its vocabulary and its context; refuses what cannot be decoded exactly.

    `device` is where it is to run, if not where it is.
    """
    config = model.config.get_text_config()
    refuse_by_config(model, device)
    adapt(model)
    max_length, note = _context(model)
    for experts in (module for module in model.modules() if is_experts(module)):
        experts.config._experts_implementation = "eager"  # the fast ones ask for round shapes
    recurrence.install(model)
    recorder = _Recorder()
    logits = _record(model, recorder, sample_tokens(model))
    _check_calls(model, config, recorder)
    max_source = 0
    if model.config.is_encoder_decoder:
        max_length, max_source = max_target_length(model), max_source_length(model)
    return Anatomy(
        recorder.layers,
        recorder.states,
        recorder.windows,
        logits.shape[-1],
        max_length,
        note,
        bool(num_experts(config)),
        max_source,
    )


def _record(model: PreTrainedModel, recorder: _Recorder, tokens: list[int]) -> torch.Tensor:
    try:
        attend_by(model, ATTENTION_NAME)
        with torch.inference_mode(), quickly():
            return run_rows(model, recorder, tokens, range(len(tokens)))
    except ModelError:
        raise
    except Exception as error:
        indexer = _names(model, _INDEXER)
        if indexer:
            what = f"{indexer} picks the keys that a row sees: such sparse attention would have to be written anew"
            raise ModelError(f"{type(model).__name__}: {what}") from error
        raise ModelError(
            f"the layers of {type(model).__name__} do not run with the registered attention: {error!r}"
        ) from error


def sample_tokens(model: PreTrainedModel) -> list[int]:
    """A few token ids, spread over the vocabulary: no padding, which some encoder-decoders leave out."""
    config = model.config.get_text_config()
    size = min(config.vocab_size, getattr(config, "decoder_vocab_size", None) or config.vocab_size)
    found = [(i * 2_654_435_761 + 17) % size for i in range(SAMPLE)]
    is_padding = [model.config.is_encoder_decoder and token == config.pad_token_id for token in found]
    return [(token + padding) % size for token, padding in zip(found, is_padding, strict=True)]


def refuse_by_config(model: PreTrainedModel, device: torch.device | None = None) -> None:
    """Refuse a model that says of itself that it cannot be decoded exactly; `device` as in `anatomy`."""
    config, name = model.config.get_text_config(), type(model).__name__
    if model.get_output_embeddings() is None:
        raise ModelError(f"{name} has no language-model head, so there are no logits to choose tokens by")
    experts = num_experts(config)
    if experts and not (can_run_experts(model) and model.dtype in FLOATS and (device or model.device).type == "cpu"):
        raise ModelError(
            f"{name} has mixture-of-experts layers ({experts}), whose products change shape with the neighbours; "
            "only the native kernels (on a CPU, in float32 or bfloat16) have a row-invariant path for them"
        )
    is_chunked = getattr(config, "attention_chunk_size", None) or "chunked_attention" in (_layer_types(config) or ())
    if is_chunked and config.model_type != "llama4_text":  # whose chunks model/private/llama4.py hands on
        raise ModelError(f"{name} uses chunked attention masks, which would be lost")
    if model.dtype not in _DTYPES:
        raise ModelError(f"{name} has dtype {model.dtype}; allowed: float32, bfloat16, float16")


def num_experts(config: Any) -> str:
    """How many experts a layer has, as `name=number` of the configuration; empty if it has none."""
    if not getattr(config, "is_moe", True):
        return ""
    config = getattr(config, "ffn_config", config)  # DBRX's
    name = next((a for a in _EXPERTS if (getattr(config, a, 0) or 0) > 1), None)
    return f"{name}={getattr(config, name)}" if name else ""


def can_run_experts(model: PreTrainedModel) -> bool:
    """True if the native kernels are there and the model leaves its experts to transformers' interface."""
    return library() is not None and any(is_experts(m) or has_experts(m) for m in model.modules())


def _layer_types(config: Any) -> list[str] | None:
    return getattr(config, "layer_types", None)


def _check_calls(model: PreTrainedModel, config: Any, recorder: _Recorder) -> None:
    """Refuse layers that mix tokens in a way that nothing answers. A layer may call more than once."""
    types = _layer_types(config)
    scans = max(len(recorder.states.scans), len(recorder.states.convolutions))
    layers = config.num_hidden_layers if types is None else sum(kind not in _MIX_NOTHING for kind in types)
    layers -= len(getattr(config, "cross_attention_layers", None) or ())  # to pictures: left out where there are none
    layers = recorder.num_sources or layers  # those of a decoder, each of which looks at the source
    if len(recorder.layers) + scans < layers:
        recurrent, private = _names(model, _RECURRENT), _names(model, _ATTENTION)
        what = f"{recurrent} keeps a state of its own" if recurrent else f"{private or type(model).__name__} is its own"
        raise ModelError(
            f"{len(recorder.layers)} of {layers} layers call the registered attention and {scans} a scan: {what} and "
            "would have to be written anew"
        )
    wanted = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    attend = [kind for kind in types or () if kind not in _RECUR]
    sliding = [t in _WINDOWED if types else bool(wanted) for t in attend or recorder.windows]
    if any(sliding) and not _are_alike(sliding, [w > 0 for w in recorder.windows]):
        raise ModelError("layers with sliding windows do not pass their window to the attention; it would be lost")


def _are_alike(layers: list[bool], calls: list[bool]) -> bool:
    """True if what holds for layers holds for calls: one for one, or as far as can be told where some call again."""
    return calls == layers if len(calls) == len(layers) else {*calls} == {*layers}


def _names(model: PreTrainedModel, pattern: re.Pattern[str]) -> str:
    """The first class of module that a pattern matches; empty if none does."""
    return next((name for module in model.modules() if pattern.search(name := type(module).__name__)), "")


def limit_of(config: Any) -> int:
    """The longest context that a configuration names."""
    return next((int(n) for name in _LIMITS if isinstance(n := getattr(config, name, None), int) and n > 0), 2**20)


def _context(model: PreTrainedModel) -> tuple[int, str]:
    """Context length, and what is to be said of it; rotary modules are made to be told which context a row has."""
    config = model.config.get_text_config()
    limit = limit_of(config)
    kept = int(getattr(config, "keep_window_size", 0) or 0)  # Doge's
    if 0 < kept < limit:
        return kept, f"beyond {kept} positions a token would pick its keys; the context is pinned to {kept}"
    known = rotary.install(model, limit)
    if known:
        lengths = ", ".join(map(str, known))
        return known[-1], (
            f"rotary scaling changes with the length: a request is pinned to the shortest of {lengths} tokens that "
            "holds its prompt and its limit"
            if len(known) > 1
            else ""
        )
    for rope in _rope_settings(config):
        kind = rope.get("rope_type", rope.get("type"))
        if kind in _LENGTH_DEPENDENT:
            original = int(
                rope.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", 0)
                or limit
            )
            return min(limit, original), (
                f"rotary scaling {kind!r} is computed by code of its own and changes with the longest neighbour beyond "
                f"{original} positions; the context is pinned to {min(limit, original)}"
            )
    return limit, ""


def _rope_settings(config: Any) -> list[dict[str, Any]]:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]
