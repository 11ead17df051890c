"""Loading with something to look at when it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

if TYPE_CHECKING:
    from paceline.llm import LLM


def load_with_progress(model: str | None, **options: Any) -> LLM:
    """`paceline.load`, with a spinner on standard error where that is a terminal."""
    with Console(stderr=True).status(f"loading {model or 'the bundled model'}"):
        from paceline.llm import load  # imports torch and transformers: seconds, so within the spinner

        return load(model, **options)


@contextmanager
def slow_progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, shown on a terminal once two seconds have passed; call what it yields."""
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    started = time.perf_counter()

    def advance() -> None:
        bar.advance(task)
        if time.perf_counter() - started > 2 and bar.console.is_terminal and not bar.live.is_started:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:  # stopping a bar that never showed prints an empty line
            bar.stop()


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
