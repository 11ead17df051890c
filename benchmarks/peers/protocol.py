"""What runner and adapters say to each other: lines of JSON, requests on stdin and answers on stdout.

The first request is a `Target`; the answer says which modes are ready. Each request after it is a `Turn`; the answer
has the tokens and the seconds of the whole call. Imported in every peer's environment, so only the standard library.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

MAX_REASON = 200  # characters of a failure that go into a table
FLOATS, QUANTISED = ("bfloat16", "float32"), ("int4", "int8")  # dtypes; the latter are made of bfloat16 by each peer


@dataclass(frozen=True)
class Target:
    """What every peer loads."""

    folder: str  # a checkpoint of transformers, its weights in `dtype`, or in bfloat16 where that is quantised
    draft: str | None  # a small one of the same vocabulary, where there is one
    dtype: str  # one of `FLOATS` and `QUANTISED`
    threads: int
    max_length: int  # tokens that the longest prompt, its output and a draft beyond it take
    exports: str  # a folder for the same weights in the peer's own format


@dataclass(frozen=True)
class Turn:
    """One output to decode: exactly `max_tokens` tokens, since nobody stops at an end of sequence."""

    mode: str
    ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


Decode = Callable[[Turn], Sequence[int]]
Modes = Mapping[str, Callable[[], Decode]]  # a mode's name -> what makes it ready


def _nothing(target: Target) -> None:
    """A peer that reads the checkpoint as it is."""


def serve(
    modes: Callable[[Target], Modes], packages: Sequence[str], export: Callable[[Target], None] = _nothing
) -> None:
    """An adapter's main: export the weights and end if started with `export`, else take turns until stdin ends."""
    answers = _private_stdout()
    target = Target(**json.loads(sys.stdin.readline()))
    if sys.argv[1:] == ["export"]:
        export(target)
        return
    ready, failed = _make_ready(modes(target))
    versions = {package: importlib.metadata.version(package) for package in packages}
    _say(answers, {"modes": list(ready), "failed": failed, "versions": versions})
    for line in sys.stdin:
        _say(answers, _take(ready, Turn(**json.loads(line))))


def reason(error: BaseException) -> str:
    """A failure in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"[:MAX_REASON]


def _private_stdout() -> TextIO:
    """The pipe to the runner; what libraries print to stdout goes to stderr, which the runner keeps as a log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _make_ready(modes: Modes) -> tuple[dict[str, Decode], dict[str, str]]:
    """Modes that can compete, and for the others why not: one that fails takes no other with it."""
    ready: dict[str, Decode] = {}
    failed: dict[str, str] = {}
    for name, load in modes.items():
        try:
            ready[name] = load()
        except Exception as error:
            failed[name] = reason(error)
    return ready, failed


def _take(ready: Mapping[str, Decode], turn: Turn) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        tokens = ready[turn.mode](turn)
    except Exception as error:
        return {"error": reason(error)}
    return {"seconds": time.perf_counter() - started, "tokens": [int(token) for token in tokens]}


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
