"""Shows a model features in place of embeddings: hooks of its embedding, and of its first layers where these add some.

So its own forward over token ids is all that there is to run and to record; whether a row is a piece of a picture is
one of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.model.layers import decoder_layers

_MARK = "_paceline_shown"


class Shown(NamedTuple):
    """What the rows of one forward are shown."""

    is_piece: torch.Tensor  # (1, R) whether a row is one of a picture
    embeddings: torch.Tensor  # (1, R, D) in place of its token's
    by_layer: tuple[torch.Tensor, ...]  # (1, R, D) each: added behind the first layers


_shown: ContextVar[Shown | None] = ContextVar("paceline_shown_to_rows", default=None)


@contextmanager
def shown(what: Shown) -> Iterator[None]:
    """Show the rows of a forward pieces of pictures while a `with` lasts."""
    token = _shown.set(what)
    try:
        yield
    finally:
        _shown.reset(token)


def install(model: PreTrainedModel, num_layers: int) -> None:
    """Have a model that is ours to change look at what it is shown; the first `num_layers` layers add to it."""
    if hasattr(model, _MARK):
        return
    setattr(model, _MARK, True)
    model.get_input_embeddings().register_forward_hook(_embed)
    for index, layer in enumerate(decoder_layers(model)[:num_layers] if num_layers else ()):
        layer.register_forward_hook(lambda module, args, out, index=index: _add(index, out))


def _embed(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
    what = _shown.get()
    return out if what is None else torch.where(what.is_piece.unsqueeze(-1), what.embeddings, out)


def _add(index: int, out: Any) -> Any:
    what = _shown.get()
    if what is None:
        return out
    hidden = out[0] if isinstance(out, tuple) else out
    added = torch.where(what.is_piece.unsqueeze(-1), hidden + what.by_layer[index], hidden)
    return (added, *out[1:]) if isinstance(out, tuple) else added
