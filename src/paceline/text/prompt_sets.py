"""Prompt sets: files of prompts in the forms that benchmarks use, recognised by their content.

A file of JSON lines is read by the keys of its lines (prompt_formats.py), whatever its name; gzip is undone. Any other
text is plain: one prompt per paragraph, that is up to a blank line.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.bundled import PROMPTS, TASKS
from paceline.errors import ConfigError
from paceline.text.prompt_formats import Prompt, format_of

NAMES = {"bundled": PROMPTS, "tasks": TASKS}
_LARGEST = 2**28  # bytes of text: beyond any benchmark, and below what a hostile gzip grows to
_SEED = 0  # of the choice that a limit makes


@dataclass(frozen=True)
class PromptSet:
    """Prompts, where they came from, and in which form."""

    source: str
    format: str
    prompts: tuple[Prompt, ...]
    limit: int | None = None  # prompts per category, of which more were in the file

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; the digest tells whether two measurements had the same prompts."""
        words = json.dumps([[prompt.category, *prompt.turns] for prompt in self.prompts])
        return {
            "source": self.source,
            "format": self.format,
            "limit": self.limit,
            "num_prompts": len(self.prompts),
            "digest": hashlib.sha256(words.encode()).hexdigest()[:16],
        }


def read_prompt_set(path_or_name: str | Path, limit: int | None = None) -> PromptSet:
    """The prompts of a file, or of a set by name: `bundled`, or `tasks` without its parameters and predictions.

    Args:
        path_or_name: a name, or a file of any form in prompt_formats.py, or of plain text.
        limit: prompts of each category at most; which ones, a fixed seed decides. They keep their order.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no prompt.
    """
    source = str(path_or_name)
    text = _read_text(source)
    try:
        name, prompts = _parse(text)
    except ValueError as error:
        raise ConfigError(f"cannot read prompts from {source!r}: {error}") from error
    if not prompts:
        raise ConfigError(f"{source!r} has no prompts; allowed: at least one")
    return PromptSet(source, name, tuple(prompts if limit is None else _limited(prompts, limit)), limit)


def _read_text(source: str) -> str:
    names = ", ".join(NAMES)
    try:
        with Path(NAMES.get(source, source)).open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = (gzip.GzipFile(fileobj=file) if is_packed else file).read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read prompts from {source!r} ({error}); allowed: {names}, or a file") from error
    if len(content) > _LARGEST:
        raise ConfigError(f"{source!r} has over {_LARGEST >> 20} MB of text; allowed: less")
    if content[:4] == b"PAR1":
        raise ConfigError(f"{source!r} is a Parquet file; allowed: JSON lines (pandas writes them) or plain text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source!r} is not text in UTF-8 ({error}); allowed: JSON lines or plain text") from error


def _parse(text: str) -> tuple[str, list[Prompt]]:
    """The form and the prompts; what begins with a brace is meant to be JSON, so it is never taken for a text."""
    if text.lstrip().startswith("{"):
        return _parse_lines(text.split("\n"))
    paragraphs = [part.strip() for part in re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))]
    return "plain text", [Prompt("text", (part,)) for part in paragraphs if part]


def _parse_lines(lines: Iterable[str]) -> tuple[str, list[Prompt]]:
    form, prompts = None, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            form = form or format_of(fields)
            if not isinstance(fields, dict) or not form.keys <= fields.keys():
                raise ValueError(f"is not of the form of those before; allowed: {form}")
            prompts.append(form.read(fields))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return form.name if form else "", prompts


def _limited(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """At most so many of each category, drawn by a seed of its own, in their order."""
    of: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        of.setdefault(prompt.category, []).append(index)
    kept: set[int] = set()
    for category, members in of.items():
        kept |= set(random.Random(f"{_SEED} {category}").sample(members, min(limit, len(members))))
    return [prompts[index] for index in sorted(kept)]
