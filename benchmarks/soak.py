"""`python benchmarks/soak.py [--minutes 10]`: mixed traffic against a `paceline serve` of its own, for as long as that.

Clients send what is right and what is wrong, whole and streamed, and some go half-way. Every greedy answer that ends is
compared with the first one to its prompt, which was plain. In the end the server holds nothing for anybody by its own
`/metrics`, its memory has not grown, no answer was a 5xx, and no tenant can tell by time what others sent.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from paceline.bench.serve.process import paceline_command, running

NUM_CLIENTS = 12
WORDS = (
    "the",
    "a",
    "small",
    "old",
    "fox",
    "dog",
    "river",
    "tree",
    "boat",
    "ran",
    "saw",
    "under",
    "and",
    "happy",
    "again",
)
WRONG: list[dict[str, Any]] = [
    {"temperature": -1},
    {"structured_outputs": {"regex": "("}},
    {"prompt": [2**40]},
    {"n": 10**6},
    {"seed": "x"},
]
DRAWN: list[dict[str, Any]] = [
    {},
    {"n": 3, "temperature": 1, "seed": 1},
    {"logprobs": 3, "echo": True},
    {"structured_outputs": {"regex": "[a-z ]{5,40}"}},
    {"speculation": {"drafters": "none"}},
    {"stop": ["fox", "the"]},
    {"deadline_ms": 300},
    {"deadline_ms": 0.01},
    {"max_tokens": 0},
    {"cache_salt": "other"},
]
MAX_GROWTH = 48 * 2**20  # bytes between the end of the first quarter and the end
MAX_RATIO = 1.25  # of medians of the time to the first token, known to another tenant or to nobody
NUM_TIMED = 40


class Traffic:
    """What clients do until an end, and what came of it."""

    def __init__(self, url: str, prompts: list[str]) -> None:
        self._client = httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=2 * NUM_CLIENTS))
        self.prompts = prompts
        self.expected = {prompt: self._plain(prompt) for prompt in prompts}
        self.answers: Counter[str] = Counter()
        self.differing = 0
        self._lock = threading.Lock()

    def run(self, seed: int, end: float) -> None:
        """One client, one request after the other."""
        draw = random.Random(seed)
        while time.monotonic() < end:
            try:
                told, is_same = self._one(draw)
            except httpx.HTTPError as error:
                told, is_same = type(error).__name__, True
            with self._lock:
                self.answers[told] += 1
                self.differing += not is_same

    def timed(self, prompt: list[int], salt: str) -> float:
        """Seconds to the first token."""
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "cache_salt": salt}
        started = time.perf_counter()
        self._client.post("/v1/completions", json=body).raise_for_status()
        return time.perf_counter() - started

    def scraped(self) -> dict[str, float]:
        """The gauges of `/metrics`, and what else has one sample."""
        families = text_string_to_metric_families(self._client.get("/metrics").text)
        return {sample.name: sample.value for family in families for sample in family.samples}

    def _plain(self, prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "speculation": {"drafters": "none"}}
        return str(self._client.post("/v1/completions", json=body).json()["choices"][0]["text"])

    def _one(self, draw: random.Random) -> tuple[str, bool]:
        prompt = draw.choice(self.prompts)
        body = {"prompt": prompt, "max_tokens": 40, "temperature": 0}
        kind = draw.random()
        if kind < 0.1:
            answer = self._client.post("/v1/completions", json={**body, **draw.choice(WRONG)})
            return str(answer.status_code), answer.status_code == 400
        if kind < 0.3:
            return self._leave(draw, {**body, "max_tokens": 400, "ignore_eos": True})
        fields = draw.choice(DRAWN) if kind < 0.7 else {}
        answer = self._client.post("/v1/completions", json={**body, **fields})
        is_plain = not fields or "cache_salt" in fields or "speculation" in fields
        is_same = not is_plain or answer.json()["choices"][0]["text"] == self.expected[prompt]
        return str(answer.status_code), is_same

    def _leave(self, draw: random.Random, body: dict[str, Any]) -> tuple[str, bool]:
        """Go before the end: of a stream behind some chunks, of a whole answer when patience ends."""
        if draw.random() < 0.5:
            try:
                self._client.post("/v1/completions", json=body, timeout=draw.random() * 0.2)
            except httpx.TimeoutException:
                return "left", True
            return "200", True
        with self._client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            for _ in itertools.islice(answer.iter_lines(), draw.randrange(20)):
                pass
        return "left", True


def drawn_prompts(count: int) -> Iterator[str]:
    """Texts of very different lengths, some with the same beginning."""
    draw = random.Random(7)
    shared = " ".join(draw.choices(WORDS, k=150))
    for i in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.choice([3, 20, 120, 300])))
        yield f"{shared} {text}" if i % 3 == 0 else text


def time_ratio(traffic: Traffic) -> float:
    """The median time of a prompt that another tenant has sent, by that of one that nobody has."""
    draw, known, fresh = random.Random(3), [], []
    for i in range(NUM_TIMED):
        first, second = ([draw.randrange(5, 900) for _ in range(513)] for _ in range(2))
        traffic.timed(first, f"victim {i}")
        known.append(traffic.timed(first, f"known {i}"))
        fresh.append(traffic.timed(second, f"fresh {i}"))
    return median(known) / median(fresh)


def until_idle(traffic: Traffic) -> dict[str, float]:
    """The metrics, once those who left have been let go of."""
    for _ in range(100):
        found = traffic.scraped()
        if not any(found[name] for name in _NOTHING):
            break
        time.sleep(0.1)
    return found


_NOTHING = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "paceline:open_requests",
    "paceline:open_prompt_tokens",
)


def soak(url: str, minutes: float) -> list[tuple[str, str, bool]]:
    """Lines of the verdict: what is to hold, what was found, whether it holds."""
    traffic = Traffic(url, list(drawn_prompts(30)))
    begin, quarters = time.monotonic(), []
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(traffic.run, seed, begin + 60 * minutes) for seed in range(NUM_CLIENTS)]
        for quarter in range(1, 5):
            time.sleep(max(begin + 60 * minutes * quarter / 4 - time.monotonic(), 0.0))
            quarters.append(traffic.scraped()["process_resident_memory_bytes"])
    for client in clients:
        client.result()
    found, ratio = until_idle(traffic), time_ratio(traffic)
    growth = quarters[-1] - quarters[0]
    left = {name: found[name] for name in _NOTHING if found[name]}
    failed = {told: count for told, count in traffic.answers.items() if told[0] not in "24l"}
    return [
        ("answers", ", ".join(f"{told}: {count}" for told, count in sorted(traffic.answers.items())), not failed),
        (
            "greedy answers unlike plain ones, and wrong requests that were not refused",
            str(traffic.differing),
            not traffic.differing,
        ),
        ("held when nobody asks", str(left or "nothing"), not left),
        (
            f"memory since the first quarter grows by at most {MAX_GROWTH >> 20} MiB",
            f"{growth / 2**20:.1f} MiB, to {quarters[-1] / 2**20:.0f} MiB",
            growth <= MAX_GROWTH,
        ),
        (
            f"time to the first token, another tenant's prompt beside an unknown one, at most {MAX_RATIO} either way",
            f"{ratio:.3f}",
            1 / MAX_RATIO <= ratio <= MAX_RATIO,
        ),
    ]


def main() -> int:
    """0 if all holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="paceline-tiny")
    asked = parser.parse_args()
    with running(paceline_command("soaked", asked.model, None, "auto")) as url:
        lines = soak(url, asked.minutes)
    for what, got, holds in lines:
        print(f"{'holds' if holds else 'FAILS'}  {what}: {got}")
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
