"""A server that is asked: replies, tries that are repeated, failures that are counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from paceline.client import Client
from paceline.errors import ServerError

T = TypeVar("T")
_TRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 3, 0.1, 10.0  # seconds


@dataclass(frozen=True)
class Reply:
    """A text, and how it ended."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class Chance:
    """A token of a greedy text, and by how much it was likelier than the next one, in log probability."""

    token: str
    margin: float | None


class Subject:
    """One of the two servers. May be shared by threads."""

    def __init__(self, client: Client, model: str, endpoint: str, fields: Mapping[str, Any]) -> None:
        self.client, self.model, self._is_chat, self._fields = client, model, endpoint == "chat", fields
        self.failures: Counter[str] = Counter()  # by what was said, of requests that had no answer in all tries
        self.num_requests = self.num_repeated = 0
        self.fingerprints: set[str] = set()
        self._lock = threading.Lock()

    def ask(self, prompt: str, max_tokens: int, temperature: float, seed: int) -> Reply | None:
        """The answer to a prompt; None if there was none in all tries, which is counted."""
        sampling = {"max_tokens": max_tokens, "temperature": temperature, "top_p": 1.0, "seed": seed}
        try:
            found = self._try(prompt, sampling)
            return _reply(found, self._is_chat)
        except ServerError as error:
            with self._lock:
                self.failures[str(error)] += 1
            return None

    def chances(self, prompt: str, max_tokens: int) -> list[Chance] | None:
        """The tokens of a greedy text with their margins; None if the server does not give them."""
        tops: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if self._is_chat else {"logprobs": 2}
        sampling = {"max_tokens": max_tokens, "temperature": 0.0, "top_p": 1.0, "seed": 0}
        try:
            choice = _choice(self._try(prompt, {**sampling, **tops}))
            return _chat_chances(choice) if self._is_chat else _text_chances(choice)
        except (ServerError, KeyError, TypeError, AttributeError, ValueError):
            return None

    def probe(self, prompt: str) -> None:
        """Have one request answered.

        Raises:
            ServerError: it is not: there is nothing to compare.
        """
        _reply(self._try(prompt, {"max_tokens": 1, "temperature": 0.0}), self._is_chat)

    def _try(self, prompt: str, sampling: dict[str, Any]) -> dict[str, Any]:
        body = {**self._fields, "model": self.model, **sampling}
        if self._is_chat:
            path, asked = "/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}
        else:
            path, asked = "/v1/completions", {"prompt": prompt}  # type: ignore[dict-item]
        for attempt in range(_TRIES):
            with self._lock:
                self.num_requests += attempt == 0
                self.num_repeated += attempt > 0
            try:
                found = self.client.post(path, {**body, **asked})
                break
            except ServerError as error:
                if error.retry_after is None or attempt == _TRIES - 1:
                    raise
                time.sleep(min(max(error.retry_after, _FIRST_PAUSE * 2**attempt), _LONGEST_PAUSE))
        if isinstance(mark := found.get("system_fingerprint"), str):
            with self._lock:
                self.fingerprints.add(mark)
        return found


def together(concurrency: int, calls: Iterable[Callable[[], T]], advance: Callable[[], None] = lambda: None) -> list[T]:
    """The results of calls in their order, so many under way at once."""
    pool = ThreadPoolExecutor(concurrency)
    try:
        futures = [pool.submit(call) for call in calls]
        for future in futures:
            future.add_done_callback(lambda _: advance())
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _choice(found: dict[str, Any]) -> dict[str, Any]:
    try:
        choice = found["choices"][0]
        return dict(choice)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerError("an answer without choices") from error


def _reply(found: dict[str, Any], is_chat: bool) -> Reply:
    choice = _choice(found)
    said = choice.get("message") or {} if is_chat else choice
    text = said.get("content" if is_chat else "text") if isinstance(said, dict) else None
    if text is None and is_chat:
        text = ""  # a model that only thought, say
    if not isinstance(text, str):
        raise ServerError("an answer without text")
    return Reply(text, str(choice.get("finish_reason")))


def _chat_chances(choice: dict[str, Any]) -> list[Chance]:
    entries = choice["logprobs"]["content"]
    return [Chance(entry["token"], _margin([top["logprob"] for top in entry["top_logprobs"]])) for entry in entries]


def _text_chances(choice: dict[str, Any]) -> list[Chance]:
    found = choice["logprobs"]
    pairs = zip(found["tokens"], found["top_logprobs"], strict=True)
    return [Chance(token, _margin(list((tops or {}).values()))) for token, tops in pairs]


def _margin(values: list[float]) -> float | None:
    """The gap of the two largest; None if there are not two."""
    best = sorted(map(float, values), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else None
