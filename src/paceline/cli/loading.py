"""Loading with something to look at when it takes long."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from paceline.llm import LLM, load


def load_with_progress(model: str | None, **options: Any) -> LLM:
    """`paceline.load`, with a spinner on standard error where that is a terminal."""
    with Console(stderr=True).status(f"loading {model or 'the bundled model'}"):
        return load(model, **options)
