"""Requests as a server gets them: all kinds of sampling and of answers, long and short, clients that leave."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from paceline.bundled import PROMPTS, TASKS

_WORDS = ["the", "a", "small", "old", "fox", "dog", "river", "tree", "boat", "ran", "saw", "under", "and", "happy"]
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Asked:
    """One request to /v1/completions.

    Args:
        kind: what is special about it.
        body: without the model.
        leaves_after: chunks of a stream after which its client goes; None: it stays.
    """

    kind: str
    body: dict[str, Any] = field(hash=False)
    leaves_after: int | None = None

    @property
    def is_compared(self) -> bool:
        """Whether every engine has to give the same text: it is greedy, and waited for."""
        return self.body.get("temperature") == 0 and self.leaves_after is None


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stream": {"stream": True},
    "n": {"n": 3, "temperature": 0.9},
    "stop": {"stop": ["fox", "the"]},
    "regex": {"structured_outputs": {"regex": "[a-z ]{5,40}"}},
    "schema": {"structured_outputs": {"json": _SCHEMA}, "max_tokens": 120},
    "logprobs": {"logprobs": 3},
    "prompt logprobs": {"prompt_logprobs": 1, "max_tokens": 8},
    "penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.2},
    "seed": {"seed": 7, "temperature": 1.0},
    "top_p": {"top_p": 0.8, "temperature": 0.7},
    "top_k": {"top_k": 5, "temperature": 1.0},
    "bad words": {"bad_words": ["fox"]},
    "min_tokens": {"min_tokens": 20, "stop": ["a"], "max_tokens": 60},
    "echo": {"echo": True, "max_tokens": 10},
    "prediction": {"prediction": {"type": "content", "content": "He was very happy. He ran to the river again."}},
    "salt": {"cache_salt": "another"},
    "wrong hints": {"vllm_xargs": {"paceline_tenant": 5, "paceline_prediction": [1, 2, 10**9]}},
    "leaving": {"stream": True, "max_tokens": 400, "ignore_eos": True},
}


def mixed(count: int, seed: int) -> list[Asked]:
    """So many requests, in turn of every kind, with prompts drawn from stories, tasks and words in any order."""
    draw = random.Random(seed)
    texts = [json.loads(line)["prompt"] for file in (PROMPTS, TASKS) for line in file.read_text().splitlines()]
    return [_one(kind, draw, texts) for kind in (list(KINDS) * (count // len(KINDS) + 1))[:count]]


def _one(kind: str, draw: random.Random, texts: list[str]) -> Asked:
    prompt = draw.choice(texts) if draw.random() < 0.6 else " ".join(draw.choices(_WORDS, k=draw.choice([1, 20, 300])))
    body = {"prompt": prompt[:1500], "temperature": 0, "max_tokens": draw.choice([1, 12, 60, 150]), **KINDS[kind]}
    return Asked(kind, body, draw.randrange(12) if kind == "leaving" else None)
