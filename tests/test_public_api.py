"""The public surface is what `__all__` says, sorted, and importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import paceline


def test_all_is_the_documented_surface() -> None:
    assert paceline.__all__ == [
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


@pytest.mark.parametrize("name", paceline.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(paceline, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        paceline.lode  # noqa: B018


def test_importing_the_package_the_command_line_and_all_drafters_loads_no_torch() -> None:
    code = "import sys, paceline.cli, paceline.drafters; print({*sys.modules} & {'torch', 'transformers'})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
