"""How a transformers model is run over rows: its layers call an attention that finds whoever runs the forward.

The model sees a flat batch (1, R) of rows with position ids and no cache of its own. Its attention layers call
`paceline_attention`, which finds the current forward in a context variable, since some models drop keyword
arguments on the way. No model code is forked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, PreTrainedModel

from paceline.errors import ModelError
from paceline.model.picking import Picks
from paceline.model.pool import LayerCache
from paceline.model.scanning import Scan
from paceline.model.seq2seq.handing import Handed, handed_to, is_handed

ATTENTION_NAME = "paceline"
NO_MASK = torch.zeros(1, 1, 1, 1)  # for models that cannot do without a mask: it masks nothing, and nobody reads it
_KNOWN = ("scaling", "sliding_window", "softcap", "s_aux", "position_bias")
# What changes no value where there is no cache, no padding and no training, by how it begins. Position ids were read
# before: queries and keys come rotated.
_HARMLESS = (
    *("dropout", "is_causal", "position_ids", "cu_seq_lens", "max_length", "output_", "use_cache", "return_dict"),
    *("deterministic", "logits_to_keep", "cache_position"),
)


class ForwardStep(Protocol):
    """What answers the model's attention and recurrent layers during one forward, called in their order."""

    keeps: bool  # whether what heads make of the rows is wanted

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """Output (R, H, D_v) for queries (R, H, D), keys and values (R, H_kv, D)."""

    def attend_source(self, query: torch.Tensor, **how: Any) -> torch.Tensor:
        """The same over all of each row's source, whose keys and values are in the cache: of an encoder-decoder."""

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Output (R, C): each channel of `x` (R, C) by its `weight` (C, K) over the last K inputs of a row's path."""

    def scan(self, given: Scan) -> torch.Tensor:
        """Output (R, H, J) float32 of a linear recurrence over a row's path."""

    def keep(self, layer: LayerCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store what a head makes of the rows, keys (R, H_kv, D) and values (R, H_kv, D_v), where the rows' own are."""


class SilentStep:
    """Answers with zeros: see `ForwardStep`."""

    keeps = False

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """(R, H, D_v)."""
        return query.new_zeros(*query.shape[:2], value.shape[2])

    def attend_source(self, query: torch.Tensor, **how: Any) -> torch.Tensor:
        """(R, H, D)."""
        return query.new_zeros(query.shape)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(R, C)."""
        return x.new_zeros(x.shape)

    def scan(self, given: Scan) -> torch.Tensor:
        """(R, H, J)."""
        return given.value.new_zeros(given.value.shape)

    def keep(self, layer: LayerCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Nothing."""


_current: ContextVar[ForwardStep | None] = ContextVar("paceline_forward_step", default=None)
_positions: ContextVar[torch.Tensor] = ContextVar("paceline_positions_of_rows")
_handed: ContextVar[Handed | None] = ContextVar("paceline_handed_to_the_decoder", default=None)
_pins: ContextVar[torch.Tensor | None] = ContextVar("paceline_pins_of_rows", default=None)


def current_step() -> ForwardStep | None:
    """Who runs the current forward; None outside of ours."""
    return _current.get()


@contextmanager
def answered_by(step: ForwardStep) -> Iterator[None]:
    """Have attention be answered by a step while a `with` lasts: for what is no whole model."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def running_step() -> ForwardStep:
    """The same, for code that is called in our forwards alone."""
    step = current_step()
    assert step is not None
    return step


def paceline_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function registered with transformers: (1, H, R, D) in, (1, R, H, D_v) out."""
    if attention_mask is not None and attention_mask is not NO_MASK:
        raise ModelError("this model gives its attention a mask of its own, which batch-invariant attention would lose")
    picks = kwargs["indices"] if isinstance(kwargs.get("indices"), Picks) else None
    if picks is not None:
        del kwargs["indices"]
    unknown = sorted(n for n, v in kwargs.items() if v is not None and not n.startswith(_HARMLESS) and n not in _KNOWN)
    if unknown:
        raise ModelError(f"{type(module).__name__} asks for attention by {', '.join(unknown)}, which would be lost")
    scaling, sinks, step = kwargs.get("scaling"), kwargs.get("s_aux"), current_step()
    if step is None:
        raise ModelError(f"the attention {ATTENTION_NAME!r} was called outside of Paceline's forwards")
    distances = distances_in(kwargs.get("position_bias"))
    how: dict[str, Any] = {
        "scaling": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "window": int(kwargs.get("sliding_window") or 0),
        "softcap": float(kwargs.get("softcap") or 0.0),
        **({} if sinks is None else {"sinks": sinks.flatten()}),
        **({} if picks is None else {"picks": picks}),
        **({} if distances is None else {"distances": distances}),
    }
    queries = query[0].transpose(0, 1)
    if is_handed(_handed.get(), key):
        return step.attend_source(queries, **how).unsqueeze(0), None
    if kwargs.get("is_causal") is False and query.shape[2] > 1:
        raise ModelError(f"{type(module).__name__} lets a token see what follows it: it is part of an encoder")
    out = step.attend(queries, key[0].transpose(0, 1), value[0].transpose(0, 1), **how)
    return out.unsqueeze(0), None


def distances_in(bias: torch.Tensor | None) -> torch.Tensor | None:
    """The table (H, n) of what is added by distance, if that is what an attention was given; None for zeros.

    Raises:
        ModelError: it is another bias, which would be lost.
    """
    if bias is None or getattr(bias, "is_by_distance", False):
        return bias
    if bool((bias != 0).any()):
        raise ModelError("this model adds a bias by position to its attention that is no function of distance")
    return None


def is_running() -> bool:
    """True while `run_rows` runs a model: its attention is answered from outside then."""
    return current_step() is not None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
    """For attention classes that do not ask the registered one: (1, H, R, D) in, (1, R, H, D_v) out."""
    rows = (part[0].transpose(0, 1) for part in (query, key, value))
    return running_step().attend(*rows, **{"window": 0, "softcap": 0.0, **how}).unsqueeze(0)


def attend_source(query: torch.Tensor, **how: Any) -> torch.Tensor:
    """The same for attention to a source: (1, H, R, D) in, (1, R, H, D_v) out."""
    how = {"window": 0, "softcap": 0.0, **how}
    return running_step().attend_source(query[0].transpose(0, 1), **how).unsqueeze(0)


def positions() -> torch.Tensor:
    """(1, R) the rows' positions, for code that would count them from a cache."""
    return _positions.get()


def pins() -> torch.Tensor | None:
    """(1, R) which context each row is rotated for, by number (rotary.py); None: all for the first."""
    return _pins.get()


AttentionInterface.register(ATTENTION_NAME, paceline_attention)


def run_rows(
    model: PreTrainedModel,
    step: ForwardStep,
    tokens: Any,
    positions: Any,
    handed: Handed | None = None,
    pinned: Any = None,
) -> torch.Tensor:
    """The model's forward over a flat batch of rows, as logits (R, V) in its own dtype.

    A decoder with an encoder is handed what stands for its source; `handed` in place of that. `pinned` (R,) says
    which context each row is rotated for; None: all for the first. Positions are (R,), or (3, R) by axis.
    """
    fed = torch.as_tensor(tokens).unsqueeze(0).to(model.device)
    places = torch.as_tensor(positions).unsqueeze(-2).to(model.device)
    chosen = None if pinned is None else torch.as_tensor(pinned).unsqueeze(0).to(model.device)
    given = handed or handed_to(model)
    own = {"input_ids": fed, "position_ids": places, "use_cache": False}
    token, handed_token = _current.set(step), _handed.set(given)
    place_token = _positions.set(places if places.ndim == 2 else places[0])
    pins_token = _pins.set(chosen)
    try:
        out = model(**(own if given is None else given.inputs(fed, places)))
    finally:
        _current.reset(token)
        _positions.reset(place_token)
        _handed.reset(handed_token)
        _pins.reset(pins_token)
    return out[0][0]  # type: ignore[no-any-return]
