"""The projections by which a decoder's layers make keys and values of a source, found by watching it once.

A run of the decoder shows which modules were given the source, and which of their outputs became keys and values. From
then on these modules alone are called, with the same input, and so with the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from paceline.model.seq2seq.handing import Pair

Projection = tuple[nn.Module, nn.Module, int]  # of keys, of values, and how many heads they have
Seen = dict[int, tuple[nn.Module, torch.Tensor]]  # by the place of its output in memory


@contextmanager
def watching(decoder: nn.Module, hidden: torch.Tensor) -> Iterator[Seen]:
    """Note which modules of a decoder are given `hidden`, and what they say."""
    seen: Seen = {}

    def note(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        is_given = bool(args) and isinstance(args[0], torch.Tensor) and args[0].data_ptr() == hidden.data_ptr()
        if is_given and isinstance(out, torch.Tensor):
            seen[out.untyped_storage().data_ptr()] = (module, out)

    hooks = [module.register_forward_hook(note) for module in decoder.modules() if not list(module.children())]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def projections_of(pairs: Sequence[Pair], seen: Seen) -> list[Projection]:
    """The modules whose outputs these keys and values are; none if that is not so of all of them."""
    found: list[Projection] = []
    for keys, values in pairs:
        modules = [_source_of(tensor, seen) for tensor in (keys, values)]
        if modules[0] is None or modules[1] is None:
            return []
        found.append((modules[0], modules[1], keys.shape[1]))
    return found


def projected(projections: Sequence[Projection], hidden: torch.Tensor) -> list[Pair]:
    """Keys and values (1, H_kv, S, D) of a source."""
    with torch.inference_mode():
        return [(_heads(keys(hidden), count), _heads(values(hidden), count)) for keys, values, count in projections]


def _source_of(tensor: torch.Tensor, seen: Seen) -> nn.Module | None:
    module, out = seen.get(tensor.untyped_storage().data_ptr(), (None, tensor))
    is_whole = out.ndim == 3 and out.shape[2] % tensor.shape[1] == 0
    return module if is_whole and torch.equal(_heads(out, tensor.shape[1]), tensor) else None


def _heads(out: torch.Tensor, count: int) -> torch.Tensor:
    return out.view(*out.shape[:2], count, -1).transpose(1, 2)
