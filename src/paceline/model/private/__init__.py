"""What some families compute in code of their own, where others ask the registered attention or experts.

One small file a family, of *adapters*: functions that take a method's place on our own copy of a model's modules. They
do what it does between its projections by `attend`, the canonical attention. While no rows are run, as when the model's
own logits are asked for, the method is what it was. A new family is a file here, called as transformers calls it.
"""

from __future__ import annotations

import re
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from paceline.model.interface import is_running
from paceline.model.private.adapters import Adapter, registered, registered_packer
from paceline.native.library import Library

_CLASSES = re.compile(r"transformers\.models\.(\w+)\.modeling_\w+")
_MARK = "_paceline_adapted"
_WARNS = "warn_if_padding_and_no_attention_mask"  # a method of transformers' models


def adapt(model: PreTrainedModel) -> None:
    """Put the adapters of a model's family in place, in a model that is ours to change; once is enough."""
    for module in model.modules():
        if hasattr(module, _WARNS):
            setattr(module, _WARNS, _say_nothing)  # it looks at the tokens, which a recording cannot
        found = registered(_name(type(module).__module__, type(module).__name__))
        if found and not hasattr(module, _MARK):
            setattr(module, _MARK, True)
            for adapter in found:
                _install(module, adapter)


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    """There is no padding."""


def _install(module: nn.Module, adapter: Adapter) -> None:
    original = getattr(module, adapter.method)
    setattr(module, adapter.method, partial(_call, adapter, module, original))


def _call(adapter: Adapter, module: nn.Module, original: Any, *args: Any, **kwargs: Any) -> Any:
    if is_running():
        return adapter.function(module, original, *args, **kwargs)
    if adapter.outside is not None:
        return adapter.outside(module, original, *args, **kwargs)
    return original(*args, **kwargs)


def has_experts(module: nn.Module) -> bool:
    """True for a module whose experts `pack_experts` packs."""
    return registered_packer(_name(type(module).__module__, type(module).__name__)) is not None


def pack_experts(model: nn.Module, library: Library) -> None:
    """Pack experts that are not behind transformers' interface, in the place of their parameters."""
    for module in list(model.modules()):
        pack = registered_packer(_name(type(module).__module__, type(module).__name__))
        if pack is not None:
            pack(module, library)


@cache
def _name(home: str, name: str) -> str:
    """A class of modules as it is registered, its family's file read; empty if it is no class of transformers'."""
    family = _CLASSES.fullmatch(home)
    if family is None:
        return ""
    if find_spec(f"{__name__}.{family[1]}") is not None:
        import_module(f"{__name__}.{family[1]}")
    return f"{family[1]}.{name}"
