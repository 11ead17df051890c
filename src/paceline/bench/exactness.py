"""Plain against speculative decoding, bit by bit: the logits behind every emitted token, and the token.

The trees are random: they hold the true continuation beside wrong siblings, in any order, so that accepted
paths wind through the cache. What is plain, alone and without a tree, is the reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from paceline.llm import LLM
from paceline.pacer import FixedPacer
from paceline.pacer.base import StepTimes
from paceline.request import Request
from paceline.testing import ScriptedDrafter
from paceline.tree import EMPTY, TreeBuilder
from paceline.types import DraftTree, StepOutcome, Target

_MAX_DEPTH = 6


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


@dataclass
class _Trace:
    """One output: its tokens, a digest of the logits behind each, and how many drafts were accepted."""

    tokens: tuple[int, ...]
    digests: list[bytes]
    accepted: int


def check_exactness(target: Target, plan: ExactPlan) -> list[ExactCheck]:
    """Decode in several ways and compare each with plain decoding of one request at a time."""
    scribe = _Scribe()
    with LLM(target, None, drafters="none", pacer=scribe) as llm:
        rng = np.random.default_rng(0)
        prompts = [[int(t) for t in rng.integers(0, target.vocab_size, n)] for n in plan.prompt_lengths]
        return [
            check
            for temperature in plan.temperatures
            for check in _Checker(llm, scribe, plan.max_tokens, temperature).checks(prompts)
        ]


class _Checker:
    """The checks at one temperature."""

    def __init__(self, llm: LLM, scribe: _Scribe, max_tokens: int, temperature: float) -> None:
        self._llm = llm
        self._scribe = scribe
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": 1}

    def checks(self, prompts: Sequence[list[int]]) -> list[ExactCheck]:
        plain = [self._decode([prompt], _no_tree)[0] for prompt in prompts]
        expected = {tuple(prompt): trace.tokens for prompt, trace in zip(prompts, plain, strict=True)}
        trees = _RandomTrees(expected, self._llm.target.vocab_size)
        ways = {
            "trees": [self._decode([prompt], trees.grow)[0] for prompt in prompts],
            f"plain, batch of {len(prompts)}": self._decode(prompts, _no_tree),
            f"trees, batch of {len(prompts)}": self._decode(prompts, trees.grow),
        }
        label = f"temperature {self._sampling['temperature']:g}, "
        return [_compare(label + name, plain, traces) for name, traces in ways.items()]

    def _decode(self, prompts: Sequence[list[int]], grow: _Grow) -> list[_Trace]:
        self._scribe.digests.clear()
        drafter = ScriptedDrafter(grow)
        outputs = self._llm.generate(list(prompts), drafters=[drafter], ignore_eos=True, **cast(Any, self._sampling))
        return [
            _Trace(out.token_ids, self._scribe.digests[tuple(prompt)], out.stats["num_accepted_draft_tokens"])
            for prompt, out in zip(prompts, outputs, strict=True)
        ]


def _compare(name: str, plain: Sequence[_Trace], traces: Sequence[_Trace]) -> ExactCheck:
    pairs = list(zip(plain, traces, strict=True))
    return ExactCheck(
        name,
        sum(len(reference.tokens) for reference in plain),
        sum(a == b for reference, trace in pairs for a, b in zip(reference.digests, trace.digests, strict=False)),
        sum(a == b for reference, trace in pairs for a, b in zip(reference.tokens, trace.tokens, strict=False)),
        sum(trace.accepted for trace in traces),
    )


_Grow = Callable[[Request, int], DraftTree]


@dataclass(frozen=True)
class _Scribe(FixedPacer):
    """Writes down the logits behind every emitted token, by prompt."""

    digests: dict[tuple[int, ...], list[bytes]] = field(default_factory=dict)

    def settle(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacing`."""
        for outcome in outcomes:
            rows = [0, *(node + 1 for node in outcome.path)][: len(outcome.tokens)]
            kept = self.digests.setdefault(_prompt_of(outcome.request), [])
            kept += [hashlib.sha256(outcome.logits[row].tobytes()).digest() for row in rows]


def _prompt_of(request: Request) -> tuple[int, ...]:
    return tuple(request.tokens[: request.num_prompt_tokens])


def _no_tree(request: Request, budget: int) -> DraftTree:
    return EMPTY


class _RandomTrees:
    """Grows trees that know the true continuation, and spoil it."""

    def __init__(self, expected: dict[tuple[int, ...], tuple[int, ...]], vocab_size: int) -> None:
        self._expected = expected
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(0)

    def grow(self, request: Request, budget: int) -> DraftTree:
        """A path along the true continuation with wrong siblings and wrong ends."""
        builder = TreeBuilder(ScriptedDrafter.name)
        rest = self._expected[_prompt_of(request)][request.num_output_tokens :]
        parent = -1
        for token in rest[: self._rng.integers(0, _MAX_DEPTH + 1)]:
            wrong = [(token + int(self._rng.integers(1, 50))) % self._vocab_size for _ in range(2)]
            above = parent
            for child in self._rng.permutation([token, *wrong[: self._rng.integers(0, 3)]]):
                if len(builder) < budget:
                    node = builder.add(above, int(child), float(self._rng.uniform(0.5, 1.0)), 0)
                    parent = node if child == token else parent
            if parent == above:
                break
        return builder.build()
