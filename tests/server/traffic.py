"""Mixed traffic, drawn by a seed: what is asked, when, how it is read, and whether its client stays."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from paceline import LLM

_BEGINNINGS = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. "
    * 3,
    "The old dog slept by the fire while the rain fell on the roof. ",
    "Tom and his sister went to the market. They saw a big red ball and a small blue boat. " * 2,
    "",
)
_ENDS = ("One day", "Then the cat said", "She was sad because", "There", "A man with a hat came and asked for")
_SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
}
_HOWS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 40},
    {"temperature": 0.7, "presence_penalty": 0.6, "repetition_penalty": 1.2},
    {"temperature": 0, "frequency_penalty": 0.5, "stop": [".", "!"]},
    {"temperature": 1.2, "min_p": 0.05, "logit_bias": {"13": 1.5}, "ignore_eos": True},
    {"temperature": 0.9, "logprobs": 2},
    {"temperature": 0, "structured_outputs": {"regex": "[a-c]{3,9} (yes|no)"}},
    {"temperature": 1.0, "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA}}},
)
_SPEECHES: tuple[dict[str, Any], ...] = ({}, {}, {"drafters": "none"}, {"drafters": ["suffix", "recycle"]})


@dataclass
class Ask:
    """One request, and what came of it."""

    body: dict[str, Any]
    delay: float  # seconds from the start
    leaves_after: int | None = None  # chunks, after which the client goes
    texts: list[str] = field(default_factory=list)
    is_whole: bool = False
    problem: str = ""


def drawn(seed: int, count: int) -> list[Ask]:
    """So many requests."""
    rng = np.random.default_rng(seed)

    def one_of(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    asks = []
    for _ in range(count):
        body = {"prompt": one_of(_BEGINNINGS) + one_of(_ENDS), "seed": int(rng.integers(5)), **one_of(_HOWS)}
        body |= {"max_tokens": int(rng.integers(1, 70)), "n": int(rng.integers(1, 3)) if rng.random() < 0.2 else 1}
        if "response_format" in body or "structured_outputs" in body:
            body["max_tokens"] += 24  # a limit below the shortest text is refused
        body |= {"stream": bool(rng.random() < 0.6), "speculation": one_of(_SPEECHES)}
        if rng.random() < 0.2:
            body["cache_salt"] = one_of(("a", "b"))
        if rng.random() < 0.15:
            body["deadline_ms"] = 120_000
        if rng.random() < 0.1:
            body["prediction"] = {"type": "content", "content": one_of(_BEGINNINGS) or "They were happy."}
        leaves = int(rng.integers(4)) if rng.random() < 0.15 else None
        asks.append(Ask(body, float(rng.exponential(0.4)), leaves))
    return asks


async def send_all(url: str, asks: list[Ask]) -> None:
    """Send them all, each at its time; what comes back is kept in them."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        await asyncio.gather(*(_send(client, ask) for ask in asks))


async def _send(client: httpx.AsyncClient, ask: Ask) -> None:
    await asyncio.sleep(ask.delay)
    ask.texts = [""] * ask.body["n"]
    if not ask.body["stream"]:
        await _send_whole(client, ask)
        return
    async with client.stream("POST", "/v1/completions", json=ask.body) as response:
        if response.status_code != 200:
            ask.problem = (await response.aread()).decode()
            return
        num_chunks = 0
        async for line in response.aiter_lines():
            if ask.leaves_after is not None and num_chunks >= ask.leaves_after:
                return
            if line == "data: [DONE]":
                ask.is_whole = True
            elif line.startswith("data: "):
                num_chunks += 1
                _take(ask, json.loads(line.removeprefix("data: ")))


async def _send_whole(client: httpx.AsyncClient, ask: Ask) -> None:
    try:
        patience = httpx.Timeout(120, read=0.05 if ask.leaves_after is not None else 120)
        response = await client.post("/v1/completions", json=ask.body, timeout=patience)
    except httpx.ReadTimeout:
        return
    if response.status_code != 200:
        ask.problem = response.text
        return
    _take(ask, response.json())
    ask.is_whole = True


def _take(ask: Ask, answer: dict[str, Any]) -> None:
    if "error" in answer:
        ask.problem = json.dumps(answer)
        return
    for choice in answer["choices"]:
        ask.texts[choice["index"]] += choice["text"]


_OF_SERVERS = ("stream", "speculation", "cache_salt", "deadline_ms", "prediction", "structured_outputs", "prompt", "n")


class Plain:
    """What `generate` gives offline, without speculation, one prompt after the other."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._known: dict[str, list[str]] = {}

    def texts(self, body: dict[str, Any]) -> list[str]:
        """The texts of a body's samples."""
        options = {name: value for name, value in body.items() if name not in _OF_SERVERS}
        options |= body.get("structured_outputs", {})
        key = json.dumps([body["prompt"], body["n"], options], sort_keys=True)
        if key not in self._known:
            outputs = self._llm.generate([body["prompt"]], drafters="none", n=body["n"], **options)
            self._known[key] = [output.text for output in outputs]
        return self._known[key]


def differences(asks: list[Ask], plain: Plain) -> list[str]:
    """Where a response is not what it should be; of one whose client went, the part that came."""
    found = []
    for place, ask in enumerate(asks):
        expected = plain.texts(ask.body)
        is_right = ask.texts == expected if ask.is_whole else all(map(str.startswith, expected, ask.texts))
        if ask.problem or not is_right or not (ask.is_whole or ask.leaves_after is not None):
            found.append(f"{place}: {ask.body}: {ask.problem or ask.texts} instead of {expected}")
    return found
