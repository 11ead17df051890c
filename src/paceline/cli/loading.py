"""Loading with something to look at when it takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from paceline.llm import LLM


def load_with_progress(model: str | None, **options: Any) -> LLM:
    """`paceline.load`, with a spinner on standard error where that is a terminal."""
    with Console(stderr=True).status(f"loading {model or 'the bundled model'}"):
        from paceline.llm import load  # imports torch and transformers: seconds, so within the spinner

        return load(model, **options)
