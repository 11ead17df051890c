"""Drafts from a folder of texts: the datastore of REST (arXiv 2311.08252), with SuffixDecoding's frequencies."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.console import progress
from paceline.drafters._store import BYTES_PER_TOKEN, TextStore, draft
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request
from paceline.engine.tree import DraftTree
from paceline.errors import ConfigError, first_line

_NAMED = """.c .cc .cfg .cpp .css .csv .go .h .hpp .html .ini .java .js .json .jsonl .md .py .rs .rst .sh .sql .tex
.toml .ts .tsv .txt .xml .yaml .yml"""
SUFFIXES = frozenset(_NAMED.split())
EVERYBODY = 1  # the owner of all: the operator chose the texts for every tenant
PART = 2**18  # characters tokenised at once


@register("corpus")
@dataclass(eq=False)
class CorpusDrafter(BaseDrafter):
    """Drafts from text files of your choice, for all tenants."""

    path: str = option("", help="a text file, or a folder of text files")
    max_megabytes: float = option(256.0, ge=0.1, help="memory for all texts together, MiB; what is over is left out")
    min_match: int = option(2, ge=2, le=8, help="shortest suffix to draft from, tokens")
    min_score: float = option(0.02, ge=0.0, le=1.0, help="do not propose nodes less likely than this to be reached")
    _store: TextStore = field(init=False)

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """See `BaseDrafter`: never: it needs a folder."""
        return False

    def attach(self, environment: Environment) -> None:
        """See `Drafter`. ConfigError if there is nothing to read or nothing to read it with."""
        files = _files(self.path)
        if environment.tokenizer is None:
            raise ConfigError("corpus: the model has no tokenizer; allowed: a model with one, to read the texts with")
        max_bytes = int(self.max_megabytes * 2**20)
        texts, num_left_out = _tokenized(files, environment.tokenizer, int(0.9 * max_bytes / BYTES_PER_TOKEN))
        if num_left_out:
            warnings.warn(
                f"corpus: {num_left_out} of {len(files)} files were left out, the last one read in part: "
                f"max_megabytes is {self.max_megabytes:g}",
                RuntimeWarning,
                stacklevel=2,
            )
        self._store = _store_of(texts, max_bytes)

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """What followed the end of the text in the corpus."""
        hits = self._store.find(request.tokens, EVERYBODY, self.min_match)
        return draft(self._store, hits, limits, self.min_score, self.name)


def _files(path: str) -> list[Path]:
    """The text files at a path, in order. ConfigError if there are none."""
    place = Path(path).expanduser()
    if not path or not place.exists():
        raise ConfigError(f"corpus: path is {path!r}, which does not exist; allowed: a text file or a folder of them")
    if place.is_file():
        return [place]
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ConfigError(f"corpus: path is {path!r}, without text files; allowed: {', '.join(sorted(SUFFIXES))}")
    return files


def _tokenized(files: list[Path], tokenizer: Any, max_tokens: int) -> tuple[list[NDArray[np.int32]], int]:
    """The files' tokens, about `most` at most, and how many files were left out wholly or in part."""
    texts: list[NDArray[np.int32]] = []
    room = max_tokens
    with progress("reading the corpus", sum(os.path.getsize(file) for file in files)) as advance:
        for index, file in enumerate(files):
            for part in _parts(file):
                ids = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
                texts.append(np.array(ids[:room], np.int32))
                advance(len(part.encode()))
                room -= len(ids)
                if room < 0:
                    return texts, len(files) - index
    return texts, 0


def _parts(file: Path) -> Iterator[str]:
    """A file's text in parts that end with a line, where lines are not endless."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            while part := lines.read(PART):
                yield part + lines.readline(PART)
    except OSError as error:
        raise ConfigError(f"corpus: {file} cannot be read: {first_line(error)}; allowed: readable files") from error


def _store_of(texts: Iterable[NDArray[np.int32]], max_bytes: int) -> TextStore:
    """A store no larger than the texts need."""
    texts = list(texts)
    num_tokens = sum(len(text) for text in texts)
    store = TextStore(min(max_bytes, int((1.05 * num_tokens + 256 * (len(texts) + 1)) * BYTES_PER_TOKEN)))
    for text in texts:
        store.add(text, EVERYBODY)
    return store
