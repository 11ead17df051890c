"""Paceline: any Hugging Face causal language model, the same bytes, sooner."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paceline._version import __version__

if TYPE_CHECKING:
    from paceline.engine.request import Drafter, StepOutcome, Token
    from paceline.engine.tree import DraftTree
    from paceline.errors import ConfigError, DrafterError, EngineError, ModelError, PacelineError, RequestError
    from paceline.llm import LLM, Stream
    from paceline.loading import load
    from paceline.output import Output
    from paceline.params import SamplingParams

__all__ = [
    "LLM",
    "ConfigError",
    "DraftTree",
    "Drafter",
    "DrafterError",
    "EngineError",
    "ModelError",
    "Output",
    "PacelineError",
    "RequestError",
    "SamplingParams",
    "StepOutcome",
    "Stream",
    "Token",
    "__version__",
    "load",
]

# Importing torch and transformers takes seconds, so names are looked up when they are first used.
_HOMES = {
    "paceline.errors": ("ConfigError", "DrafterError", "EngineError", "ModelError", "PacelineError", "RequestError"),
    "paceline.llm": ("LLM", "Stream"),
    "paceline.loading": ("load",),
    "paceline.output": ("Output",),
    "paceline.params": ("SamplingParams",),
    "paceline.engine.request": ("Drafter", "StepOutcome", "Token"),
    "paceline.engine.tree": ("DraftTree",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'paceline' has no attribute {name!r}")
