"""What takes long, with something to look at: loading a model, and reading a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.cli.growing import grow
from paceline.console import progress

if TYPE_CHECKING:
    from paceline.llm import LLM


def load_with_progress(model: str | None, **options: Any) -> LLM:
    """`paceline.load`, under a progress bar."""
    with progress("reading PyTorch and transformers") as bar:
        from paceline import load  # seconds, so under the bar

        bar.update(0.0, f"loading {model or 'the bundled model'}")
        return load(model, on_progress=bar.update, **options)


def load_grown(size: str, cache_tokens: int | None = None, **options: Any) -> LLM:
    """The bundled model grown to a size, under a progress bar."""
    with progress("reading PyTorch and transformers") as bar:
        from paceline import load  # seconds, so under the bar

        model, default = grow(size, options["dtype"], bar)
        bar.update(0.0, "measuring what forwards cost")
        options["draft_model"] = options["draft_model"] or DEFAULT_DRAFT
        return load(model, tokenizer=str(bundled_path(DEFAULT_TARGET)), cache_tokens=cache_tokens or default, **options)


@contextmanager
def prefill_progress(llm: LLM, num_tokens: int) -> Iterator[None]:
    """A progress bar over the reading of a prompt of so many tokens, of which the last is read as decoding begins."""
    with progress("reading the prompt", num_tokens - 1) as bar:
        llm.on_prefill(bar)
        try:
            yield
        finally:
            llm.on_prefill(None)


def fitting(llm: LLM, num_prompt_tokens: int, max_tokens: int) -> int:
    """At most as many tokens as the context has room for: so that a default never refuses a long prompt that fits."""
    room = llm.target.max_length - num_prompt_tokens
    return min(max_tokens, room) if room > 0 else max_tokens
