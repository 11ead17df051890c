"""The layers of transformers that a head is built of, found by the configuration of their family."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from transformers import PreTrainedConfig

from paceline.errors import ModelError


class Family(NamedTuple):
    """Classes of one family: a decoder layer by (config, index), a norm by (size, eps), rotary angles by (config)."""

    layer: Any
    norm: Any
    rotary: Any


def family_of(config: PreTrainedConfig) -> Family:
    """What a family's decoder is made of.

    Raises:
        ModelError: it has no layers that a head could be built of.
    """
    home = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        modeling = import_module(home)
    except ImportError as error:
        raise ModelError(f"the head's layers are of {config.model_type!r}, which transformers cannot build") from error
    layers = [name for name in vars(modeling) if name.endswith("DecoderLayer") and _is_own(modeling, name)]
    for prefix in (name.removesuffix("DecoderLayer") for name in layers):
        norm, rotary = _named(modeling, f"{prefix}RMSNorm"), _named(modeling, f"{prefix}TextRotaryEmbedding")
        rotary = rotary or _named(modeling, f"{prefix}RotaryEmbedding")
        if norm is not None and rotary is not None:
            return Family(getattr(modeling, f"{prefix}DecoderLayer"), norm, rotary)
    raise ModelError(
        f"the head's layers are of {config.model_type!r}, which has no decoder layer with rotary positions"
    )


def _is_own(modeling: ModuleType, name: str) -> bool:
    return getattr(getattr(modeling, name), "__module__", "") == modeling.__name__


def _named(modeling: ModuleType, name: str) -> Any:
    return getattr(modeling, name, None)
