"""Whether we compute what the model computes by its own attention, at the start of a context and far into it."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from paceline.errors import ModelError
from paceline.model import inspect
from paceline.model.forward import ModuleForward
from paceline.model.inspect import Anatomy
from paceline.model.interface import ATTENTION_NAME, run_rows
from paceline.model.pool import PagePool
from paceline.model.quantized import cache_dtype, is_quantized, quickly
from paceline.model.rotary import contexts
from paceline.model.rows import TreeWork, tree_rows
from paceline.model.seq2seq.attaching import attend_by

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}  # relative, on whole logits
# An input that rounding decides otherwise by its last bit is another int8 value; keys and values are bfloat16.
_QUANTIZED_TOLERANCE = 5e-2
_FIRST = 4  # of the sample's tokens are read before the others
_FURTHEST = 65_521  # where contexts are longer: models that scale by position begin to at 8,192 or 16,384


class _LayerFarIn(DynamicLayer):  # type: ignore[misc]
    """A cache's layer that says it holds `start` positions, and holds none: what follows sees itself alone."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def get_seq_length(self) -> int:
        return self._start + int(super().get_seq_length())

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return super().get_seq_length() + query_length, self._start


def eager_logits(model: PreTrainedModel, parts: Anatomy) -> torch.Tensor:
    """(7, V) float32 logits of `sample_tokens` by the model's own eager attention, in two parts, as it generates.

    All at once where it keeps no cache, or a state: some scans begin anew in the second part, or forget a little.
    """
    if parts.states:
        return _at_once(model)
    try:
        first = _run(model, _sample(model)[:_FIRST], use_cache=True)
        name = _cache_name(model)
        rest = _run(model, _sample(model)[_FIRST:], use_cache=True, **{name: getattr(first, name)})
        return torch.cat([first.logits[0], rest.logits[0]]).float()
    except Exception:  # it has no cache, or another
        return _at_once(model)


def _at_once(model: PreTrainedModel) -> torch.Tensor:
    return _run(model, _sample(model), use_cache=False).logits[0].float()  # type: ignore[no-any-return]


def _run(model: PreTrainedModel, tokens: list[int], **how: Any) -> Any:
    attend_by(model, "eager")
    ids = torch.tensor([tokens], device=model.device)
    if model.config.is_encoder_decoder:
        how |= {"decoder_input_ids": ids}
        ids = torch.tensor([_sample(model)], device=model.device)
    with torch.inference_mode():
        return model(input_ids=ids, **how)


def _cache_name(model: PreTrainedModel) -> str:
    """What the model calls its cache: releases of transformers differ."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _sample(model: PreTrainedModel) -> list[int]:
    return inspect.sample_tokens(model)


def check_far(model: PreTrainedModel, parts: Anatomy) -> None:
    """Refuse a model that goes by something else than the position ids that it is given.

    Both ways see seven tokens that begin far into the context, and nothing before. Nothing is said of models that
    cannot be asked so.
    """
    tokens = _sample(model)
    known = contexts(model)  # the longest is compared where it ends, since its rotation is computed for that length
    start = known[-1] - len(tokens) if len(known) > 1 else min(parts.max_length - len(tokens) - 2, _FURTHEST)
    if start <= 0 or model.config.is_encoder_decoder:  # whose cache has two parts
        return
    try:
        cache = _cache_far_in(model, start)
        with quickly():  # only positions are compared here
            eager = _run(model, tokens, use_cache=True, **{_cache_name(model): cache}).logits[0].float()
    except Exception:  # its cache is of its own kind
        return
    if cache.get_seq_length() == start:  # it keeps none
        return
    attend_by(model, ATTENTION_NAME)
    ours = _FarForward(model, PagePool(parts.layers, 3, cache_dtype(model), model.device), start).logits_of(tokens)
    error = distance(ours, eager, parts.has_experts)
    if not error <= tolerance_of(model):
        _refuse_encoder(model)
        raise ModelError(
            f"from position {start} on the logits differ from the model's own by {error:.2g} (relative): "
            f"{type(model).__name__} counts positions by something else than the ids that it is given"
        )


def _cache_far_in(model: PreTrainedModel, start: int) -> Cache:
    """One with as many layers as the model's own would have.

    Raises:
        TypeError: that has others than of keys and values.
    """
    layers = DynamicCache(config=model.config).layers
    if not all(isinstance(layer, DynamicLayer) for layer in layers):
        raise TypeError("other layers than of keys and values")
    return Cache(layers=[_LayerFarIn(start) for _ in layers])


class _FarForward(ModuleForward):
    """Rows that see each other alone, at positions that the model is told."""

    def logits_of(self, tokens: list[int]) -> torch.Tensor:
        """(R, V) float32 logits of a chain."""
        sequence = self._pool.reserve(len(tokens))
        assert sequence is not None
        rows = tree_rows([TreeWork(sequence, tokens, range(-1, len(tokens) - 1))], len(tokens), self._pool.device)
        with torch.inference_mode(), quickly():
            positions = self._last_position + np.arange(len(tokens))
            pins = np.full(len(tokens), len(contexts(self._model)) - 1) if self._is_pinned else None
            return run_rows(self._model, self._step(rows), tokens, positions, pinned=pins).float()


def tolerance_of(model: PreTrainedModel) -> float:
    """How far its logits may be from eager ones, relative to their size."""
    return _QUANTIZED_TOLERANCE if is_quantized(model) else _TOLERANCE[model.dtype]


def distance(ours: torch.Tensor, eager: torch.Tensor, has_experts: bool) -> float:
    """How far logits (R, V) are from eager ones, relative to their size.

    Rounding may send a row to other experts, where a router is nearly undecided: then the median row counts.
    """
    if has_experts:
        return float(((ours - eager).norm(dim=1) / eager.norm(dim=1).clamp(min=1e-12)).median())
    return float((ours - eager).norm() / eager.norm().clamp(min=1e-12))


def check_agreement(model: PreTrainedModel, ours: torch.Tensor, eager: torch.Tensor, has_experts: bool) -> None:
    """Refuse a model whose logits through our attention are not those of its own, up to rounding."""
    error, tolerance = distance(ours, eager, has_experts), tolerance_of(model)
    if not error <= tolerance:
        _refuse_encoder(model)
        _refuse_own_positions(model, ours, has_experts)
        raise ModelError(
            f"the logits through batch-invariant attention differ from the model's eager attention by {error:.2g} "
            f"(relative; allowed {tolerance:.0e}): its attention does something that Paceline does not know"
        )


def _refuse_own_positions(model: PreTrainedModel, ours: torch.Tensor, has_experts: bool) -> None:
    """Refuse a model that computes what we do if it is told to begin at position 0, and something else if not told."""
    positions = torch.arange(inspect.SAMPLE, device=model.device).unsqueeze(0)
    ways: list[dict[str, Any]] = [{}, {"position_ids": positions}]
    untold, told = (_run(model, _sample(model), use_cache=False, **how).logits[0].float() for how in ways)
    if distance(ours, told, has_experts) <= tolerance_of(model) < distance(untold, told, has_experts):
        raise ModelError(
            f"{type(model).__name__} counts positions in a way of its own, from its padding id or its cache: a token's "
            "position would have to be worked out as it does"
        )


def _refuse_encoder(model: PreTrainedModel) -> None:
    """Refuse a model whose own logits depend on what follows a token."""
    tokens = _sample(model)
    whole, part = (_run(model, some, use_cache=False).logits[0].float() for some in (tokens, tokens[:-1]))
    if not distance(part, whole[:-1], has_experts=True) <= tolerance_of(model):
        raise ModelError(
            f"{type(model).__name__} is an encoder as it is configured, and no decoder: what follows a token changes "
            "its logits; a checkpoint that was trained as a decoder says is_decoder"
        )
