"""Loading with something to look at when it takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from paceline.llm import LLM


def load_with_progress(model: str | None, **options: Any) -> LLM:
    """`paceline.load`, with a spinner on standard error where that is a terminal."""
    with Console(stderr=True).status(f"loading {model or 'the bundled model'}"):
        from paceline.loading import load  # imports torch and transformers: seconds, so within the spinner

        return load(model, **options)


class PrefillProgress:
    """A progress bar over a long prompt, shown once it has taken two seconds. Use it as a context manager."""

    def __init__(self, llm: LLM, num_tokens: int) -> None:
        self._llm, self._num_tokens = llm, num_tokens
        self._started = time.perf_counter()
        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("reading the prompt", total=num_tokens, visible=True)
        self._done = 0

    def __enter__(self) -> None:
        self._llm.on_prefill(self._advance)

    def __exit__(self, *exc: object) -> None:
        self._stop()
        self._llm.on_prefill(None)

    def _advance(self, count: int) -> None:
        self._done += count
        self._bar.update(self._task, completed=self._done)
        if time.perf_counter() - self._started > 2 and not self._bar.live.is_started:
            self._bar.start()
        if self._done >= self._num_tokens - 1:
            self._stop()

    def _stop(self) -> None:
        if self._bar.live.is_started:  # stopping a bar that never showed prints an empty line
            self._bar.stop()
