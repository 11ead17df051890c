"""Drafts from earlier requests: what followed the longest suffix in the tenant's own texts.

SuffixDecoding's global tree (arXiv 2411.04975), in memory and, where a path is given, from one run to the next.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any

from paceline.drafters._store import Hit, StoreFile, TextStore, Vocabulary, draft, owner_key
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree


@dataclass(slots=True)
class _Open:
    """A request being decoded: whose it is, and what the last proposal was made from."""

    owner: int
    hits: list[Hit]


@register("history")
@dataclass(eq=False)
class HistoryDrafter(BaseDrafter):
    """Remembers finished requests, each tenant's for itself, and drafts from them."""

    path: str = option("", help="file that keeps the texts between runs; none: memory only")
    max_megabytes: float = option(64.0, ge=0.1, help="memory for all texts together, MiB")
    min_match: int = option(2, ge=2, le=8, help="shortest suffix to draft from, tokens")
    min_score: float = option(0.02, ge=0.0, le=1.0, help="do not propose nodes less likely than this to be reached")
    save_every: int = option(64, ge=1, help="requests between two savings, if there is a path")
    _open: dict[int, _Open] = field(default_factory=dict, init=False)
    _store: TextStore = field(init=False)
    _salt: bytes = field(default=b"", init=False)
    _file: StoreFile | None = field(default=None, init=False)
    _saving: threading.Thread | None = field(default=None, init=False)
    _num_unsaved: int = field(default=0, init=False)

    def attach(self, environment: Environment) -> None:
        """See `Drafter`. ConfigError if the file is of another vocabulary or cannot be used."""
        self._store, self._salt = TextStore(int(self.max_megabytes * 2**20)), secrets.token_bytes(16)
        if self.path:
            vocabulary = Vocabulary(environment.vocab_size, _fingerprint(environment.tokenizer))
            self._file = StoreFile(os.path.expanduser(self.path), vocabulary)
            for text, owner in self._file.open():
                self._store.add(text, owner)
            self._salt = self._file.salt
            self._tell()

    def start(self, request: Request) -> bool:
        """See `Drafter`: False while nothing at all is remembered."""
        self._open[request.id] = _Open(owner_key(request.hints.tenant, self._salt), [])
        return not self._store.is_empty

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """What followed the end of the text in the tenant's earlier requests."""
        known = self._open[request.id]
        known.hits = self._store.find(request.tokens, known.owner, self.min_match)
        return draft(self._store, known.hits, limits, self.min_score, self.name)

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`: texts that were of use are kept for longer."""
        first = outcome.tokens[0] if outcome.tokens else None
        if first is not None and first.source == self.name:
            self._store.credit(self._open[outcome.request.id].hits, first.id)

    def finish(self, request: Request) -> None:
        """See `Drafter`: remembers the text, unless nothing was emitted."""
        known = self._open.pop(request.id, None)
        if known is None or len(request.tokens) <= request.num_prompt_tokens:
            return
        self._store.add(request.tokens, known.owner)
        self._num_unsaved += 1
        if self._file is not None and self._num_unsaved >= self.save_every and not self._is_saving():
            self._save(self._file)

    def close(self) -> None:
        """See `Drafter`: saves what is not yet saved."""
        if self._file is not None:
            if self._num_unsaved:
                self._join()
                self._save(self._file)
            self._join()
            self._tell()

    def _save(self, file: StoreFile) -> None:
        """Save in another thread: disks are slow, and requests are waiting."""
        self._tell()
        self._num_unsaved = 0
        snapshot, capacity = self._store.snapshot(), self._store.capacity
        self._saving = threading.Thread(target=lambda: file.save(snapshot(), capacity))
        self._saving.start()

    def _is_saving(self) -> bool:
        return self._saving is not None and self._saving.is_alive()

    def _join(self) -> None:
        if self._saving is not None:
            self._saving.join()

    def _tell(self) -> None:
        """Warn of what went wrong with the file."""
        while self._file is not None and self._file.troubles:
            warnings.warn(f"{self.name}: {self._file.troubles.pop(0)}", RuntimeWarning, stacklevel=3)


def _fingerprint(tokenizer: Any) -> str:
    """A hash of a tokenizer's entries; empty without one."""
    if tokenizer is None:
        return ""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
    return hashlib.sha256(repr(entries).encode()).hexdigest()
