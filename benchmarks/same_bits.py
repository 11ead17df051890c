"""Plain against speculative decoding, bit by bit: the logits behind every emitted token, and the token.

The trees are random: they hold the true continuation beside wrong siblings, in any order, so that accepted
paths wind through the cache. What is plain, alone and without a tree, is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from paceline.engine.ports import Target
from paceline.engine.request import Request
from paceline.engine.tree import EMPTY, DraftTree
from paceline.llm import LLM
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter
from paceline.testing.recorder import RandomTrees, Recorder, Trace


@dataclass(frozen=True)
class ExactPlan:
    """Prompts of random tokens, shorter and longer than a page, and what to decode after them."""

    prompt_lengths: tuple[int, ...] = (3, 60, 130, 200)
    max_tokens: int = 64
    temperatures: tuple[float, ...] = (0.0, 0.8)


@dataclass(frozen=True)
class ExactCheck:
    """How one way to decode compares with the reference."""

    name: str
    num_tokens: int
    equal_rows: int  # tokens whose logits have the reference's bits
    equal_tokens: int
    accepted: int  # draft tokens that were accepted: without any, a check of trees says little

    @property
    def is_exact(self) -> bool:
        """True if every bit and every token is the reference's."""
        return self.equal_rows == self.equal_tokens == self.num_tokens

    def __str__(self) -> str:
        bits = "equal" if self.equal_rows == self.num_tokens else "DIFFERENT"
        tokens = "equal" if self.equal_tokens == self.num_tokens else "DIFFERENT"
        return (
            f"bits {bits} {self.equal_rows}/{self.num_tokens}, tokens {tokens} {self.equal_tokens}/"
            f"{self.num_tokens}, {self.accepted} drafts accepted"
        )


def check_exactness(target: Target, plan: ExactPlan) -> list[ExactCheck]:
    """Decode in several ways and compare each with plain decoding of one request at a time."""
    recorder = Recorder(FixedPacer())
    with LLM.from_target(target, None, drafters="none", pacer=recorder) as llm:
        rng = np.random.default_rng(0)
        prompts = [[int(t) for t in rng.integers(0, target.vocab_size, n)] for n in plan.prompt_lengths]
        return [
            check
            for temperature in plan.temperatures
            for check in _Checker(llm, recorder, plan.max_tokens, temperature).checks(prompts)
        ]


class _Checker:
    """The checks at one temperature."""

    def __init__(self, llm: LLM, recorder: Recorder, max_tokens: int, temperature: float) -> None:
        self._llm = llm
        self._recorder = recorder
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": 1}

    def checks(self, prompts: Sequence[list[int]]) -> list[ExactCheck]:
        plain = [self._decode([prompt], _no_tree)[0] for prompt in prompts]
        expected = {tuple(prompt): trace.tokens for prompt, trace in zip(prompts, plain, strict=True)}
        trees = RandomTrees(expected, self._llm.target.vocab_size)
        ways = {
            "trees": [self._decode([prompt], trees.grow)[0] for prompt in prompts],
            f"plain, batch of {len(prompts)}": self._decode(prompts, _no_tree),
            f"trees, batch of {len(prompts)}": self._decode(prompts, trees.grow),
        }
        label = f"temperature {self._sampling['temperature']:g}, "
        return [_compare(label + name, plain, traces) for name, traces in ways.items()]

    def _decode(self, prompts: Sequence[list[int]], grow: _Grow) -> list[Trace]:
        self._recorder.restart()
        drafter = ScriptedDrafter(grow)
        self._llm.generate(list(prompts), drafters=[drafter], ignore_eos=True, **cast(Any, self._sampling))
        return self._recorder.traces


def _compare(name: str, plain: Sequence[Trace], traces: Sequence[Trace]) -> ExactCheck:
    pairs = list(zip(plain, traces, strict=True))
    return ExactCheck(
        name,
        sum(len(reference.tokens) for reference in plain),
        sum(a == b for reference, trace in pairs for a, b in zip(reference.digests, trace.digests, strict=False)),
        sum(a == b for reference, trace in pairs for a, b in zip(reference.tokens, trace.tokens, strict=False)),
        sum(trace.num_accepted for trace in traces),
    )


_Grow = Callable[[Request, int], DraftTree]


def _no_tree(request: Request, budget: int) -> DraftTree:
    return EMPTY
