"""How a transformers model is run over rows: its layers call an attention that finds whoever runs the forward.

The model sees a flat batch (1, R) of rows with position ids and no cache of its own. Its attention layers call
`paceline_attention`, which finds the current forward in a context variable, since some models drop keyword
arguments on the way. No model code is forked.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, PreTrainedModel

from paceline.errors import ModelError
from paceline.model.picking import Picks
from paceline.model.scanning import Scan

ATTENTION_NAME = "paceline"
NO_MASK = torch.zeros(1, 1, 1, 1)  # for models that cannot do without a mask: it masks nothing, and nobody reads it
_KNOWN = ("scaling", "sliding_window", "softcap", "s_aux")
# What changes no value where there is no cache, no padding and no training, by how it begins. Position ids were read
# before: queries and keys come rotated.
_HARMLESS = (
    *("dropout", "is_causal", "position_ids", "cu_seq_lens", "max_length", "output_", "use_cache", "return_dict"),
    *("deterministic", "logits_to_keep", "cache_position"),
)


class ForwardStep(Protocol):
    """What answers the model's attention and recurrent layers during one forward, called in their order."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """Output (R, H, D_v) for queries (R, H, D), keys and values (R, H_kv, D)."""

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Output (R, C): each channel of `x` (R, C) by its `weight` (C, K) over the last K inputs of a row's path."""

    def scan(self, given: Scan) -> torch.Tensor:
        """Output (R, H, J) float32 of a linear recurrence over a row's path."""


_current: ContextVar[ForwardStep | None] = ContextVar("paceline_forward_step", default=None)

_positions: ContextVar[torch.Tensor] = ContextVar("paceline_positions_of_rows")


def current_step() -> ForwardStep | None:
    """Who runs the current forward; None outside of ours."""
    return _current.get()


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
    if kwargs.get("is_causal") is False and query.shape[2] > 1:
        raise ModelError(f"{type(module).__name__} lets a token see what follows it: it is part of an encoder")
    scaling, sinks, step = kwargs.get("scaling"), kwargs.get("s_aux"), current_step()
    if step is None:
        raise ModelError(f"the attention {ATTENTION_NAME!r} was called outside of Paceline's forwards")
    out = step.attend(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=int(kwargs.get("sliding_window") or 0),
        softcap=float(kwargs.get("softcap") or 0.0),
        **({} if sinks is None else {"sinks": sinks.flatten()}),
        **({} if picks is None else {"picks": picks}),
    )
    return out.unsqueeze(0), None


def is_running() -> bool:
    """True while `run_rows` runs a model: its attention is answered from outside then."""
    return current_step() is not None


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
    """For attention classes that do not ask the registered one: (1, H, R, D) in, (1, R, H, D_v) out."""
    rows = (part[0].transpose(0, 1) for part in (query, key, value))
    step = current_step()
    assert step is not None
    return step.attend(*rows, **{"window": 0, "softcap": 0.0, **how}).unsqueeze(0)


def positions() -> torch.Tensor:
    """(1, R) the rows' positions, for code that would count them from a cache."""
    return _positions.get()


AttentionInterface.register(ATTENTION_NAME, paceline_attention)


def run_rows(model: PreTrainedModel, step: ForwardStep, tokens: Any, positions: Any, **kwargs: Any) -> torch.Tensor:
    """The model's forward over a flat batch of rows, as logits (R, V) in its own dtype."""
    device = model.device
    places = torch.as_tensor(positions).unsqueeze(0).to(device)
    token, place_token = _current.set(step), _positions.set(places)
    try:
        out = model(
            input_ids=torch.as_tensor(tokens).unsqueeze(0).to(device),
            position_ids=places,
            use_cache=False,
            **kwargs,
        )
    finally:
        _current.reset(token)
        _positions.reset(place_token)
    return out[0][0]  # type: ignore[no-any-return]
