"""What the tests of the law share: scripted logits, requests made by hand, and one way to run them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models

from paceline.drafters import BaseDrafter, available, make
from paceline.drafters.base import options_of
from paceline.engine.engine import Engine
from paceline.engine.request import NO_HINTS, Drafter, Environment, Hints, Request, StepOutcome
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.errors import ConfigError, EngineError, ModelError
from paceline.pacing import AdaptivePacer, CostTable, FixedPacer, ForwardCost
from paceline.params import SamplingParams
from paceline.sampling.grammar import Compiler
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.testing import ScriptedDrafter, ScriptedTarget
from paceline.testing.fakes import Logits
from paceline.text.stream import TextStream


def target_of(vocab_size: int, seed: int = 0, scale: float = 1.5, max_rows: int = 8192) -> ScriptedTarget:
    """A target whose logits are random, but a function of the whole history."""
    return ScriptedTarget(_random_logits(vocab_size, seed, scale), vocab_size, max_rows=max_rows)


@functools.cache
def _random_logits(vocab_size: int, seed: int, scale: float) -> Logits:
    """The same histories come again in many tests; what is read of one by another cannot be written to."""

    @functools.cache
    def logits(history: tuple[int, ...]) -> np.ndarray:
        row = np.random.default_rng([seed, *history]).normal(scale=scale, size=vocab_size).astype(np.float32)
        row.setflags(write=False)
        return row

    return logits


# Tokens that spell something, for grammars; ids above are padding, as models have it.
EOS = 0
WORDS = {"<e>": EOS, "a": 1, "b": 2, "ab": 3, "c": 4}


def tiny_tokenizer() -> str:
    """A tokenizer of `WORDS` as JSON."""
    tokenizer = Tokenizer(models.BPE(WORDS, [("a", "b")]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<e>"])
    return tokenizer.to_str()


@functools.cache
def compiler_of(vocab_size: int) -> Compiler:
    return Compiler(tiny_tokenizer, vocab_size)


@dataclass(frozen=True)
class Kind:
    """A kind of sampling: parameters, and what a tokenizer would have said of its tokens."""

    params: dict[str, Any]
    eos: frozenset[int] = frozenset()
    bad_words: tuple[tuple[int, ...], ...] = ()
    prompt: tuple[int, ...] = (1, 3)

    def request(
        self,
        vocab_size: int,
        max_tokens: int,
        *,
        seed: int = 0,
        sample: int = 0,
        prompt: Sequence[int] | None = None,
        drafters: Sequence[Drafter] = (),
        law: type[Sampler] = Sampler,
        hints: Hints = NO_HINTS,
    ) -> Request:
        prompt = self.prompt if prompt is None else prompt
        params = SamplingParams(**self.params, max_tokens=max_tokens)
        context = SamplerContext(vocab_size, self.eos, self.bad_words)
        ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.eos)
        text = TextStream(lambda ids: "", prompt, ())
        grammar = compiler_of(vocab_size).start(params, self.eos, max_tokens)
        return Request(prompt, law(params, context, prompt, seed, sample, grammar), text, ends, drafters, seed, hints)


def decode(
    target: ScriptedTarget,
    requests: Sequence[Request],
    budget: int = 7,
    outcomes: list[StepOutcome] | None = None,
    engine: Engine | None = None,
) -> list[tuple[int, ...]]:
    """The output of each request, decoded together; what happened in each step is added to `outcomes`."""
    engine = engine or Engine(target, FixedPacer(budget), max_running=1024)
    for request in requests:
        engine.add(request)
    for _ in range(sum(request.params.max_tokens for request in requests)):  # a step emits at least one token
        taken = engine.step()
        if outcomes is not None:
            outcomes += taken
        if engine.scheduler.is_idle:
            break
    assert engine.scheduler.is_idle
    for request in requests:
        if isinstance(request.error, EngineError):
            raise request.error.__cause__ or request.error  # what a fake found wrong
    return [tuple(request.tokens[request.num_prompt_tokens :]) for request in requests]


class ErraticClock:
    """A clock on which everything takes as long as it likes: by it, a pacer decides now this and now that."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._now = 0.0

    def __call__(self) -> float:
        self._now += float(self._random.lognormal(-8.0, 1.5))
        return self._now


def paced(target: ScriptedTarget, seed: int = 0, max_slowdown: float = 10.0, budget: int = 24) -> Engine:
    """An engine whose pacer goes by measured cost and belief, on an erratic clock."""
    clock = ErraticClock(seed)
    costs = CostTable({rows: ForwardCost(1e-3 * (1 + 0.02 * rows), 1e-7) for rows in (1, 2, 4, 8, 16, 64, 256, 1024)})
    return Engine(target, AdaptivePacer(costs, max_slowdown, budget, clock), max_running=1024, clock=clock)


class RecordingLaw(Sampler):
    """A law that keeps every row of logits it was given, and the scores that it made of it."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.records: list[tuple[np.ndarray, np.ndarray]] = []

    def process(self, row):
        scores = super().process(row)
        self.records.append((row.copy(), scores.copy()))
        return scores


def check_counters(request: Request, outcomes: Sequence[StepOutcome]) -> None:
    """Every counter of a request against what happened in its steps."""
    stats = request.stats
    histogram = stats.acceptance_histogram
    cut = sum(len(outcome.path) + 1 - len(outcome.tokens) for outcome in outcomes)
    drafted_last = sum(outcome.num_accepted_drafts == len(outcome.tokens) for outcome in outcomes)
    assert stats.num_steps == len(outcomes) == sum(histogram)
    assert stats.num_accepted_draft_tokens == sum(j * steps for j, steps in enumerate(histogram))
    assert stats.num_emitted_tokens == request.num_output_tokens
    assert stats.num_emitted_tokens == stats.num_accepted_draft_tokens + stats.num_steps - drafted_last
    assert stats.num_emitted_tokens == sum(len(outcome.path) + 1 for outcome in outcomes) - cut
    assert stats.num_draft_tokens == sum(len(outcome.tree) for outcome in outcomes)
    assert stats.num_spec_steps == sum(len(outcome.tree) > 0 for outcome in outcomes)
    assert stats.num_evaluated_drafts == sum(map(evaluated, outcomes))
    assert stats.num_draft_tokens == sum(d.num_draft_tokens for d in stats.drafters.values())
    assert stats.num_accepted_draft_tokens == sum(d.num_accepted_draft_tokens for d in stats.drafters.values())


def evaluated(outcome: StepOutcome) -> int:
    """Emitted tokens that stand where a child of the tree stood too."""
    above = (-1, *outcome.path)[: len(outcome.tokens)]
    return sum(any(parent == node for parent in outcome.tree.parents) for node in above)


def prepared(drafter: BaseDrafter | str, vocab_size: int) -> Drafter:
    """A registered drafter as an engine without a tokenizer would attach it."""
    made = make(drafter)
    assert isinstance(made, BaseDrafter)
    made.attach(Environment(None, vocab_size, "cpu"))
    return made


def branching(target: ScriptedTarget) -> ScriptedDrafter:
    """A drafter of random trees, in which the target's token is among the children about every other time."""

    def script(request: Request, budget: int) -> DraftTree:
        rng = np.random.default_rng([request.seed % 2**32, *request.tokens])
        builder = TreeBuilder("branching")
        for _ in range(int(rng.integers(0, budget + 1))):
            parent = int(rng.integers(-1, len(builder)))
            builder.add(parent, int(rng.integers(target.vocab_size)), float(rng.random()), 0)
        return builder.build()

    return ScriptedDrafter(script)


def registered() -> dict[str, Callable[[ScriptedTarget], Drafter]]:
    """The registered drafters that need neither a tokenizer nor files, as ready to draft as their options let them."""
    able: dict[str, Callable[[ScriptedTarget], Drafter]] = {}
    for name, cls in available().items():
        least = [f"{f.name}={f.metadata['ge']}" for f in options_of(cls) if f.name.startswith("min_")]
        spec = f"{name}:{','.join(least)}"
        try:
            prepared(spec, 2)
        except (ConfigError, ModelError):
            continue
        able[name] = lambda target, spec=spec: prepared(spec, target.vocab_size)
    return able


# Every drafter in this table is held to the same exactness.
DRAFTERS: dict[str, Callable[[ScriptedTarget], Drafter]] = {
    "empty": lambda target: ScriptedDrafter(),
    "perfect": ScriptedDrafter.perfect,
    "adversarial": ScriptedDrafter.adversarial,
    "right then wrong": lambda target: ScriptedDrafter.adversarial(target, right=2),
    "branching": branching,
    **registered(),
}

KINDS: dict[str, Kind] = {
    "temperature 1": Kind({"temperature": 1.0}),
    "temperature 0.6": Kind({"temperature": 0.6}),
    "top_k": Kind({"temperature": 1.3, "top_k": 3}),
    "top_p": Kind({"temperature": 1.0, "top_p": 0.8}),
    "min_p": Kind({"temperature": 1.5, "min_p": 0.2}),
    "repetition_penalty": Kind({"temperature": 1.0, "repetition_penalty": 1.7}),
    "presence_penalty": Kind({"temperature": 1.0, "presence_penalty": 1.9}),
    "frequency_penalty": Kind({"temperature": 1.0, "frequency_penalty": -1.5}),
    "logit_bias": Kind({"temperature": 1.0, "logit_bias": {0: 1.25, 2: float("-inf")}}),
    "bad_words": Kind({"temperature": 1.0}, bad_words=((4,), (1, 2), (0, 0, 3))),
    "allowed_token_ids": Kind({"temperature": 1.2, "allowed_token_ids": [4, 0, 3], "frequency_penalty": 0.8}),
    "eos": Kind({"temperature": 1.0}, eos=frozenset({0})),
    "min_tokens": Kind({"temperature": 1.0, "min_tokens": 2, "stop_token_ids": [3]}, eos=frozenset({0})),
    "regex": Kind({"temperature": 1.0, "regex": "(ab|b)*c?"}, eos=frozenset({EOS})),
    "choice": Kind({"temperature": 1.3, "choice": ["ab", "aba", "ca", "b"], "top_p": 0.9}, eos=frozenset({EOS})),
    "choice without EOS": Kind({"temperature": 1.0, "choice": ["ab", "abab", "ca", "b"]}),
    "all": Kind(
        {
            "temperature": 1.4,
            "top_k": 4,
            "top_p": 0.93,
            "min_p": 0.03,
            "repetition_penalty": 1.2,
            "presence_penalty": 0.4,
            "frequency_penalty": 0.7,
            "logit_bias": {0: -0.5, 1: 0.75},
            "min_tokens": 1,
            "stop_token_ids": [2],
        },
        eos=frozenset({0}),
        bad_words=((1, 4),),
    ),
}
