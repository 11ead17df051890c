"""The register of adapters, by the class whose method they replace, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from paceline.model.interface import attend
from paceline.native.library import Library

Function = Callable[..., Any]  # of the module, its own method, and what that was called with


class Adapter(NamedTuple):
    """What is called in place of a method: `function` while rows are run, else `outside`, or the method if None."""

    method: str
    function: Function
    outside: Function | None


Packer = Callable[[Any, Library], None]  # of a module's weights, for the native kernels

_adapters: dict[str, list[Adapter]] = {}
_packers: dict[str, Packer] = {}


def adapter(name: str, method: str = "forward", outside: Function | None = None) -> Callable[[Function], Function]:
    """Register a function for a method of transformers' class `family.Class`."""

    def register(function: Function) -> Function:
        _adapters.setdefault(name, []).append(Adapter(method, function, outside))
        return function

    return register


def packer(name: str) -> Callable[[Packer], Packer]:
    """Register what packs the experts of transformers' class `family.Class`, in the place of its parameters."""

    def register(function: Packer) -> Packer:
        _packers[name] = function
        return function

    return register


def registered_packer(name: str) -> Packer | None:
    """The packer of a class `family.Class`."""
    return _packers.get(name)


def registered(name: str) -> list[Adapter]:
    """The adapters of a class `family.Class`."""
    return _adapters.get(name, [])


def heads(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """(1, R, H * D) as (1, H, R, D)."""
    return x.view(*x.shape[:-1], -1, head_dim).transpose(1, 2)


def merged(x: torch.Tensor) -> torch.Tensor:
    """(1, R, H, D) as (1, R, H * D)."""
    return x.flatten(-2)


def attend_with_key_bias(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, *, scaling: float
) -> torch.Tensor:
    """Attention with `bias` (1, H_kv, R) added to a key's product with any query, before it is scaled.

    It is one more feature of the key, which the query has 1 in: what a key adds is stored with it.
    """
    ones = torch.ones(1, dtype=query.dtype, device=query.device).expand(*query.shape[:-1], 1)
    wide_key = torch.cat([key, bias.unsqueeze(-1).to(key.dtype)], -1)
    return attend(torch.cat([query, ones], -1), wide_key, value, scaling=scaling)
