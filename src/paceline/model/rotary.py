"""Rotary scalings that change with a text's length (`dynamic`, `longrope`), pinned for each request.

Transformers computes such frequencies anew whenever the longest text of a batch grows, and leaves the keys that it has
as they are. Here a request gets the frequencies of one length for all its rows: the shortest of a few *contexts* that
holds what the request may reach. The model's own rotary modules compute every context's sines and cosines, and each
row takes those of its request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel, modeling_rope_utils

from paceline.model.interface import is_running, pins

_DYNAMIC, _LONGROPE = "dynamic", "longrope"
_MARK = "_paceline_contexts"
_FEW = 16  # contexts at most, each twice as long as the one before


def install(model: PreTrainedModel, limit: int) -> tuple[int, ...]:
    """Have each row be rotated for its own context, in a model that is ours to change.

    Returns:
        The contexts in tokens, ascending; empty where rotary frequencies do not depend on the length.
    """
    if hasattr(model, _MARK):
        return contexts(model)
    scaled = [module for module in model.modules() if _changes(module)]
    found = sorted({length for module in scaled for length in _contexts_of(module, limit)})
    for module in scaled if len(found) > 1 else ():
        module.forward = partial(_forward, module.forward, [_pinned(module, length) for length in (1, *found[1:])])
    setattr(model, _MARK, tuple(found))
    return contexts(model)


def contexts(model: PreTrainedModel) -> tuple[int, ...]:
    """What `install` returned; empty before it."""
    return getattr(model, _MARK, ())


def _forward(original: Callable[..., Any], pinned: Sequence[Callable[..., Any]], *args: Any, **kwargs: Any) -> Any:
    """Sines and cosines (1, R, D) of the rows, each by its context."""
    if not is_running():
        return original(*args, **kwargs)
    chosen, out = pins(), pinned[0](*args, **kwargs)
    if chosen is None:
        return out
    for number, other in enumerate(pinned[1:], 1):
        own = torch.eq(chosen, number).unsqueeze(-1)
        out = tree_map(partial(torch.where, own), other(*args, **kwargs), out)
    return out


def _pinned(module: nn.Module, length: int) -> Callable[..., Any]:
    """The forward of a copy with the frequencies that transformers gives to texts of so many tokens."""
    own = deepcopy(module)
    kinds = list(_kinds(own))
    for position in (0, length - 1):  # the first makes it forget how far it has come
        for layer_type in kinds:
            how = {} if layer_type is None else {"layer_type": layer_type}
            own(torch.zeros(1), torch.tensor([[position]]), **how)
    return partial(inspect.unwrap(type(own).forward), own)


def _changes(module: nn.Module) -> bool:
    """True if transformers computes a module's frequencies anew as texts grow."""
    return _is_decorated(type(module).forward) and any(
        kind in (_DYNAMIC, _LONGROPE) for kind in _kinds(module).values()
    )


def _is_decorated(forward: Any) -> bool:
    while forward is not None:
        code = getattr(forward, "__code__", None)
        if code is not None and code.co_filename == modeling_rope_utils.__file__:
            return True
        forward = getattr(forward, "__wrapped__", None)
    return False


def _kinds(module: nn.Module) -> dict[str | None, str]:
    """The kinds of scaling by type of layer, or of all layers."""
    kind = getattr(module, "rope_type", "")
    return kind if isinstance(kind, dict) else {None: kind}


def _contexts_of(module: Any, limit: int) -> Iterator[int]:
    """The lengths whose frequencies a module has, the last being its longest."""
    for layer_type, kind in _kinds(module).items():
        settings = module.config.rope_parameters if layer_type is None else module.config.rope_parameters[layer_type]
        if kind == _LONGROPE:
            yield from {min(int(settings["original_max_position_embeddings"]), limit), limit}
        elif kind == _DYNAMIC:
            original = int(module.config.max_position_embeddings)
            longest = max(original, int(original * float(settings["factor"])))
            yield from (min(original << k, longest) for k in range(_FEW) if original << k < 2 * longest)
