"""A loop like vLLM's without vLLM: it schedules, verifies and keeps rows, and calls the drafter after each step.

Outputs are scripts. Time is a clock of its own: a step takes what its rows take.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from paceline.vllm.facts import Facts
from paceline.vllm.metrics import Metrics
from paceline.vllm.runner import Runner
from paceline.vllm.settings import Settings
from paceline.vllm.turn import Turns

BASE, ROW, PROMPT_ROW = 0.010, 0.0002, 0.0001  # seconds of a step, of each of its rows, of each token of a prompt
_loops = itertools.count()  # nothing that one has learnt is kept for another
END = 1  # the token that ends an output


@dataclass
class Scripted:
    """A request of the loop: its prompt, and what the model says."""

    name: str
    prompt: list[int]
    output: list[int]  # without an end: `max_tokens` is its length; END anywhere in it ends it
    extra: dict[str, Any] = field(default_factory=dict)
    num_read: int = 0
    said: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    num_steps: int = 0  # in which it decoded
    num_drafted: int = 0  # tokens that were verified

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.said

    @property
    def has_ended(self) -> bool:
        return len(self.said) >= len(self.output) or END in self.said


class Loop:
    """vLLM, as far as a drafter sees it.

    Args:
        settings: of the drafter.
        chunk: tokens of a prompt that a step reads.
        seats: requests that a step may have.
    """

    def __init__(self, settings: Settings, num_drafts: int = 7, chunk: int = 16, seats: int = 8) -> None:
        self.now, self._chunk = 0.0, chunk
        self.running: list[Scripted] = []
        self.waiting: list[Scripted] = []
        self._preempted: list[Scripted] = []  # before the next step
        self._known: dict[str, Any] = {}
        self._batch = SimpleNamespace(req_ids=[])
        runner = Runner(SimpleNamespace(input_batch=self._batch, requests=self._known), "0.32.0")
        facts = Facts(1000, 512, num_drafts, max_rows=64, tokenizer=None, identity={"loop": next(_loops)})
        metrics = Metrics("a loop", is_counting=False)
        self.turns = Turns(facts, runner, settings, metrics, lambda: self.now)
        self._seats, self._num_drafts = seats, num_drafts

    def add(self, *requests: Scripted) -> None:
        """New requests, which wait for a seat."""
        self.waiting += requests
        for one in requests:
            params = SimpleNamespace(
                max_tokens=len(one.output), eos_token_id=END, stop_token_ids=None, extra_args=one.extra
            )
            self._known[one.name] = SimpleNamespace(sampling_params=params, prompt_token_ids=one.prompt)

    def abort(self, one: Scripted) -> None:
        """A client has gone."""
        self.running = [other for other in self.running if other is not one]
        self.waiting = [other for other in self.waiting if other is not one]
        del self._known[one.name]

    def preempt(self, one: Scripted) -> None:
        """It gives up its seat, its cache and its drafts, and waits for a step at least."""
        self.running.remove(one)
        one.num_read, one.drafts = 0, []
        self._preempted.append(one)

    def run(self) -> None:
        """Until all have ended."""
        while self.running or self.waiting:
            self.step()

    def step(self) -> None:
        """One step of all that run."""
        while self.waiting and len(self.running) < self._seats:
            self.running.append(self.waiting.pop(0))
        sampled = [self._advance(one) for one in self.running]
        batch = self.running
        self._batch.req_ids = [one.name for one in batch]
        tokens = np.zeros((len(batch), 600), np.int32)
        for row, one in enumerate(batch):
            tokens[row, : len(one.tokens)] = one.tokens
        lengths = np.array([len(one.tokens) for one in batch])
        drafts = self.turns.take(sampled, lengths, tokens, self.now)
        for one, chain in zip(batch, drafts, strict=True):
            one.drafts = list(chain)
            assert len(chain) <= self._num_drafts
            assert not chain or len(one.said) + len(chain) < len(one.output)  # the last is no draft
            assert not (chain and one.has_ended)
        self.waiting[:0], self._preempted = self._preempted, []
        for one in [one for one in batch if one.has_ended]:  # vLLM finds out behind the drafter's back
            self.abort(one)
        self.now += BASE if self.running else 5.0  # an idle engine sleeps

    def _advance(self, one: Scripted) -> list[int]:
        """What a step emits for a request; nothing while its prompt is read."""
        left = len(one.tokens) - one.num_read
        if left > 1 or not one.said:
            taken = min(left, self._chunk)
            one.num_read += taken
            self.now += taken * PROMPT_ROW
            if taken < left:
                return []
        else:
            self.now += (1 + len(one.drafts)) * ROW
            one.num_steps += 1
            one.num_drafted += len(one.drafts)
        rest = one.output[len(one.said) :]
        agreed = next((i for i, (d, t) in enumerate(zip(one.drafts, rest, strict=False)) if d != t), len(one.drafts))
        new = rest[: agreed + 1]
        one.said += new
        one.num_read = len(one.tokens) - 1
        return new
