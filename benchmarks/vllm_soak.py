"""`python benchmarks/vllm_soak.py [--requests 500]`: mixed traffic against vLLM's server with Paceline in it.

The same requests go to vLLM alone, twice, to vLLM with its own `ngram`, and to vLLM with Paceline. No request may fail,
and greedy texts have to be those of vLLM alone wherever `ngram`'s are. What vLLM itself says otherwise the second
time is counted too: of those texts nobody promises anything. Needs vLLM: docs/vllm.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from typing_extensions import Self
from vllm_requests import Asked, mixed

from paceline.bench.serve.process import running

NUM_CLIENTS = 8
NAME = "soaked"
_NGRAM = {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
SERVERS = {
    "vllm": ["--drafters", "none"],
    "ngram": ["--drafters", "none", "--", "--speculative-config", json.dumps(_NGRAM)],
    "paceline": [],
}
_COUNTERS = ("vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total", "paceline:")


@dataclass(frozen=True)
class Answer:
    """What a client had: a status, or what became of the connection, and all texts."""

    status: str
    texts: tuple[str, ...] = ()


class Traffic:
    """Sends requests to a server, some at once, and takes down the answers."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=300, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def answers(self, asked: Sequence[Asked]) -> list[Answer]:
        """In the order of the requests."""
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            return list(pool.map(self._answer, asked))

    def counters(self) -> list[str]:
        """Those of `/metrics` that are about drafts."""
        lines = self._client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith(_COUNTERS)]

    def _answer(self, one: Asked) -> Answer:
        body = {"model": NAME, **one.body}
        try:
            if not body.get("stream"):
                return _read(self._client.post("/v1/completions", json=body))
            with self._client.stream("POST", "/v1/completions", json=body) as answer:
                return _follow(answer, one.leaves_after)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            return Answer(f"{type(error).__name__}: {error}")


def _read(answer: httpx.Response) -> Answer:
    if answer.status_code != httpx.codes.OK:
        return Answer(f"{answer.status_code}: {answer.text[:200]}")
    return Answer("200", tuple(choice["text"] for choice in answer.json()["choices"]))


def _follow(answer: httpx.Response, leaves_after: int | None) -> Answer:
    if answer.status_code != httpx.codes.OK:
        return Answer(f"{answer.status_code}: {answer.read()[:200]!r}")
    text, is_done = "", False
    for line in itertools.islice(answer.iter_lines(), leaves_after):
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            is_done = True
        elif data:
            text += "".join(choice["text"] for choice in json.loads(data)["choices"])
    return Answer("200" if is_done else "left" if leaves_after is not None else "cut off", (text,))


@contextmanager
def started(name: str, model: str, further: Sequence[str]) -> Iterator[str]:
    """The URL of one of `SERVERS`, with further arguments for vLLM."""
    own = SERVERS[name]
    options = [*own, *(() if "--" in own else ("--",)), *further]
    command = [sys.executable, "-m", "paceline", "serve", "--engine", "vllm", model, "--served-model-name", NAME]
    with running([*command, *options]) as url:
        yield url


def served(name: str, model: str, further: Sequence[str], asked: Sequence[Asked], passes: int) -> list[list[Answer]]:
    """The answers of a server, started for it, in each pass."""
    with started(name, model, further) as url, Traffic(url) as traffic:
        found = [traffic.answers(asked) for _ in range(passes)]
        print(f"\n{name}:", *traffic.counters(), sep="\n  ", flush=True)
    return found


def failures(asked: Sequence[Asked], answers: Sequence[Answer]) -> Counter[str]:
    """By kind and by what was said, of requests that had no answer."""
    return Counter(
        f"{one.kind}: {answer.status}"
        for one, answer in zip(asked, answers, strict=True)
        if answer.status not in ("200", "left")
    )


def main() -> int:
    """0 if all holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--model", default="paceline-tiny")
    parser.add_argument("--dtype", default="float32", help="in bfloat16 vLLM's greedy texts often depend on the batch")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    asked = mixed(given.requests, given.seed)
    greedy = [one for one in asked if one.is_compared]
    further = ["--dtype", given.dtype, "--max-model-len", "1024", "--max-num-seqs", str(2 * NUM_CLIENTS)]
    alone, again = served("vllm", given.model, further, asked, 2)
    (ngram,) = served("ngram", given.model, further, greedy, 1)  # on a CPU top_k would end it
    (ours,) = served("paceline", given.model, further, asked, 1)
    return report(asked, (alone, again, ngram, ours))


def report(asked: Sequence[Asked], found: tuple[list[Answer], ...]) -> int:
    """Print the counts; 1 if something does not hold."""
    alone, again, ngram, ours = found
    cells: Counter[tuple[bool, bool, bool]] = Counter()
    rest = iter(ngram)
    for one, first, second, drafted in zip(asked, alone, again, ours, strict=True):
        if one.is_compared:
            cells[first == second, first == next(rest), first == drafted] += 1
            if first != drafted:
                print(f"\n{one.kind}: {first.texts!r}\n  with Paceline {drafted.texts!r}")
    failed = failures(asked, ours)
    print(f"\n{len(asked)} requests of {len({one.kind for one in asked})} kinds, {NUM_CLIENTS} at once")
    print("failed with vLLM alone:", dict(failures(asked, alone)) or "none")
    print("failed with Paceline:", dict(failed) or "none")
    print(f"left half-way: {sum(answer.status == 'left' for answer in ours)}")
    print(f"greedy texts: {sum(cells.values())}")
    for (steady, by_ngram, by_us), count in sorted(cells.items(), reverse=True):
        words = ["equals" if is_equal else "DIFFERS FROM" for is_equal in (steady, by_ngram, by_us)]
        print(f"  {count:4}  vLLM {words[0]} itself; ngram {words[1]} it; Paceline {words[2]} it")
    lost = sum(count for (steady, by_ngram, by_us), count in cells.items() if steady and by_ngram and not by_us)
    holds = not failed and not lost
    print("holds" if holds else "FAILS")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
