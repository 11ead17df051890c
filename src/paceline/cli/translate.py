"""`paceline translate`: print what an encoder-decoder makes of a source, as it is decoded, then one line of facts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from paceline.cli.explain import show_explanation
from paceline.cli.generate import read_prediction, show, to_json
from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DRAFTERS, DTYPE, SLOWDOWN, parse_drafters
from paceline.errors import ConfigError, ModelError
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.llm import LLM

_MODEL = typer.Option(..., metavar="MODEL", help="Hub name or folder of an encoder-decoder: Marian, NLLB, T5, BART.")


def translate(
    source: str = typer.Argument(None, help="The text to translate; - reads it from standard input."),
    file: str = typer.Option(None, metavar="FILE", help="Translate each line of a file instead."),
    model: str = _MODEL,
    source_language: str = typer.Option(None, help="As the tokenizer names it.", show_default="the tokenizer's"),
    target_language: str = typer.Option(None, help="As the tokenizer names it.", show_default="the model's"),
    drafters: list[str] = DRAFTERS,
    max_tokens: int = typer.Option(None, min=1, help="Most tokens to generate.", show_default="the model's context"),
    temperature: float = typer.Option(0.0, help="0 is greedy."),
    seed: int = typer.Option(None, help="Same seed, same text.", show_default="drawn"),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_slowdown: float = SLOWDOWN,
    prediction: str = typer.Option(
        None, metavar="FILE", help="An earlier translation, of --file line by line; it changes the speed alone."
    ),
    explain: bool = typer.Option(False, "--explain", help="Say what each drafter brought, and why the pacer stopped."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object a text instead of text."),
    quiet: bool = typer.Option(False, "--quiet", help="Print the translation alone."),
) -> None:
    """Translate SOURCE, or each line of --file: exactly the text of plain decoding, sooner."""
    texts = _texts(source, file)
    expected = _expected(prediction, len(texts), by_line=file is not None)
    chosen = parse_drafters(drafters)
    options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    SamplingParams(**options)  # refused before the model is loaded
    options |= {"source_language": source_language, "target_language": target_language}
    started = time.perf_counter()
    with _translator(model, drafters=chosen, dtype=dtype, device=device, max_slowdown=max_slowdown) as llm:
        load_seconds = time.perf_counter() - started
        for text, draft in zip(texts, expected, strict=True):
            if not text.strip():
                print()
            elif json:
                print(to_json(llm.generate(text, prediction=draft, **options), load_seconds))
            else:
                stream = llm.stream(text, prediction=draft, **options)
                show(stream, sys.stdout, quiet)
                if explain:
                    show_explanation(stream.output.stats, Console(stderr=True, highlight=False, soft_wrap=True))


@contextmanager
def _translator(model: str, **loading: Any) -> Iterator[LLM]:
    with load_with_progress(model, **loading) as llm:
        if llm.target.reads is None:
            raise ModelError(f"{model} reads no source: it goes on with a text; allowed here: an encoder-decoder")
        yield llm


def _texts(source: str | None, file: str | None) -> list[str]:
    if (source is None) == (file is None):
        raise ConfigError("a source and --file are given both or neither; allowed: one of them")
    if file is None:
        return [sys.stdin.read() if source == "-" else str(source)]
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--file is {file!r}: {error}; allowed: a text file") from error


def _expected(prediction: str | None, count: int, by_line: bool) -> list[str | None]:
    if prediction is None:
        return [None] * count
    text = read_prediction(prediction)
    if not by_line:
        return [text.strip()]
    lines: list[str | None] = [line or None for line in text.splitlines()][:count]
    return [*lines, *[None] * (count - len(lines))]
