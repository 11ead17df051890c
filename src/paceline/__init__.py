"""Paceline: any Hugging Face causal language model, the same bytes, sooner."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paceline._version import __version__
from paceline.garbage import collected_later

if TYPE_CHECKING:
    from paceline.accelerating import HandedOverWarning, accelerate, unaccelerate
    from paceline.deciding.calibration import Calibration
    from paceline.deciding.decision import Decision
    from paceline.engine.request import Drafter, StepOutcome, Token
    from paceline.engine.stats import Stats
    from paceline.engine.stopping import Stop, Stopped
    from paceline.engine.tree import DraftTree
    from paceline.errors import (
        ConfigError,
        ContextLengthError,
        DeadlineError,
        DrafterError,
        EngineError,
        ModelError,
        PacelineError,
        RequestError,
        StateError,
    )
    from paceline.llm import LLM, load
    from paceline.output import Output
    from paceline.params import SamplingParams
    from paceline.sampling.logprobs import PromptLogprob
    from paceline.scores import Score
    from paceline.streams import AsyncStream, Stream

__all__ = [
    "LLM",
    "AsyncStream",
    "Calibration",
    "ConfigError",
    "ContextLengthError",
    "DeadlineError",
    "Decision",
    "DraftTree",
    "Drafter",
    "DrafterError",
    "EngineError",
    "HandedOverWarning",
    "ModelError",
    "Output",
    "PacelineError",
    "PromptLogprob",
    "RequestError",
    "SamplingParams",
    "Score",
    "StateError",
    "Stats",
    "StepOutcome",
    "Stop",
    "Stopped",
    "Stream",
    "Token",
    "__version__",
    "accelerate",
    "load",
    "unaccelerate",
]

# Importing torch and transformers takes seconds, so names are looked up when they are first used.
_HOMES = {
    "paceline.errors": (
        "ConfigError",
        "ContextLengthError",
        "DeadlineError",
        "DrafterError",
        "EngineError",
        "ModelError",
        "PacelineError",
        "RequestError",
        "StateError",
    ),
    "paceline.llm": ("LLM", "load"),
    "paceline.accelerating": ("HandedOverWarning", "accelerate", "unaccelerate"),
    "paceline.streams": ("AsyncStream", "Stream"),
    "paceline.engine.stats": ("Stats",),
    "paceline.output": ("Output",),
    "paceline.params": ("SamplingParams",),
    "paceline.sampling.logprobs": ("PromptLogprob",),
    "paceline.engine.request": ("Drafter", "StepOutcome", "Token"),
    "paceline.engine.stopping": ("Stop", "Stopped"),
    "paceline.engine.tree": ("DraftTree",),
    "paceline.deciding.calibration": ("Calibration",),
    "paceline.deciding.decision": ("Decision",),
    "paceline.scores": ("Score",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            with collected_later():
                return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'paceline' has no attribute {name!r}")
