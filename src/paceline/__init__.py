"""Paceline: any Hugging Face causal language model, the same bytes, sooner."""

from __future__ import annotations

from paceline._version import __version__
from paceline.errors import ConfigError, DrafterError, ModelError, PacelineError, RequestError
from paceline.llm import LLM, Output, Stream, load
from paceline.params import SamplingParams
from paceline.types import Drafter, DraftTree, StepOutcome, Token

__all__ = [
    "LLM",
    "ConfigError",
    "DraftTree",
    "Drafter",
    "DrafterError",
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
