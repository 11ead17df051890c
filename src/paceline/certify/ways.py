"""The ways to decode that must not make a difference: drafters, budgets, batches, arrivals, streams, samples.

Each way decodes prompts in one kind of sampling beside the plain outputs that are expected, and tallies what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from paceline.bench.witness import Mismatch, RandomTrees, Trace, Witness
from paceline.certify.parting import parted_prompts
from paceline.certify.plan import Case
from paceline.drafters import BaseDrafter
from paceline.engine.ports import Pacer
from paceline.engine.request import Drafter, Request, fresh_tenant
from paceline.engine.tree import DraftTree
from paceline.llm import LLM
from paceline.pacing import FixedPacer
from paceline.streams import Stream

Ids = tuple[int, ...]
Plant = Callable[[Pacer], Pacer]  # what stands between the witness and the pacer: a fault, or nothing

_BUDGET, _LARGE_BUDGET = 7, 15
_HEAD_START = 5  # tokens that a stream has emitted when the next one joins
_SAMPLES = 3
_COUNTING = ("presence_penalty", "frequency_penalty", "min_tokens", "regex")  # they know where the prompt ended


@dataclass
class Tally:
    """What one way has shown in one kind of sampling."""

    outputs: int = 0
    decisions: int = 0
    equal_tokens: int = 0
    equal_bits: int = 0
    steps: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    cached_tokens: int = 0  # of prompts, found in the prefix cache
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """True if every token and every bit is that of plain decoding."""
        return self.equal_tokens == self.equal_bits == self.decisions

    def add(self, traces: Sequence[Trace], expected: Sequence[Trace], mismatches: Sequence[Mismatch]) -> None:
        """Take in outputs; one that ends early or late lacks or has decisions that are not equal."""
        self.mismatches += mismatches
        for trace, plain in zip(traces, expected, strict=True):
            self.outputs += 1
            self.decisions += max(len(plain.tokens), len(trace.tokens))
            self.equal_tokens += _num_equal(trace.tokens, plain.tokens)
            self.equal_bits += _num_equal(trace.digests, plain.digests)
            self.steps += trace.num_steps
            self.draft_tokens += trace.num_drafts
            self.accepted_draft_tokens += trace.num_accepted

    def merge(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in ("outputs", "decisions", "equal_tokens", "equal_bits", "steps"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.draft_tokens += other.draft_tokens
        self.accepted_draft_tokens += other.accepted_draft_tokens
        self.cached_tokens += other.cached_tokens
        self.mismatches += other.mismatches


def _num_equal(ours: Sequence[object], theirs: Sequence[object]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=False))


class TreeDrafter(BaseDrafter):
    """Drafts the random trees that it is given. One for each LLM, which keeps every drafter that it meets."""

    name = "random trees"
    trees: RandomTrees

    def propose_one(self, request: Request, budget: int) -> DraftTree:
        """See `BaseDrafter`."""
        return self.trees.grow(request, budget)


class Arena:
    """An LLM under a witness, and the plain outputs that everything else is compared with, each decoded once.

    Plain outputs find nothing in the prefix cache; all else finds what was decoded in this arena.
    """

    def __init__(self, llm: LLM, max_tokens: int, plant: Plant = lambda pacer: pacer) -> None:
        self.llm = llm
        self.trees = TreeDrafter()
        self.max_tokens = max_tokens
        self.pacer = llm.engine.pacer  # the LLM's own
        self._plant = plant
        self._tenant = fresh_tenant()
        self.witness = Witness(self.pacer)
        llm.engine.pacer = self.witness
        self.plain_traces: dict[tuple[Ids, str, int], Trace] = {}

    def plain(self, prompt: Ids, case: Case, seed: int) -> Trace:
        """The plain output of one prompt, alone."""
        key = (prompt, case.name, seed)
        if key not in self.plain_traces:
            self.pace(FixedPacer(0))
            options = self.options(case, seed) | {"tenant": fresh_tenant()}
            self.llm.generate(list(prompt), drafters="none", **options)
            self.plain_traces[key] = self.witness.traces[0]
        return self.plain_traces[key]

    def plain_samples(self, prompts: Sequence[Ids], options: Mapping[str, Any]) -> list[Trace]:
        """The plain samples of prompts, decoded one after the other."""
        self.pace(FixedPacer(0))
        scheduler = self.llm.engine.scheduler
        most, scheduler.max_running = scheduler.max_running, 1
        try:
            self.llm.generate([list(p) for p in prompts], drafters="none", **{**options, "tenant": fresh_tenant()})
        finally:
            scheduler.max_running = most
        return list(self.witness.traces)

    def compare(
        self,
        prompts: Sequence[Ids],
        expected: Sequence[Trace],
        drafters: Sequence[str | Drafter],
        pacer: Pacer,
        options: Mapping[str, Any],
    ) -> Tally:
        """Decode prompts together and compare."""
        self.pace(pacer, expected)
        outputs = self.llm.generate([list(p) for p in prompts], drafters=list(drafters), **options)
        tally = self.tally(expected)
        tally.cached_tokens = sum(output.stats.num_cached_tokens for output in outputs)
        return tally

    def tally(self, expected: Sequence[Trace]) -> Tally:
        """What the witness has seen since `pace`."""
        tally = Tally()
        tally.add(self.witness.traces, expected, self.witness.mismatches)
        return tally

    def pace(self, pacer: Pacer, expected: Sequence[Trace] = (), keep_rows: bool = False) -> None:
        """Decode under this pacer from now on, and watch."""
        self.witness.inner = self._plant(pacer)
        self.witness.watch(expected, keep_rows)

    def options(self, case: Case, seed: int) -> dict[str, Any]:
        """A case's sampling as `generate` takes it; outputs go on after an end of sequence unless it says otherwise."""
        common = {"max_tokens": self.max_tokens, "seed": seed, "ignore_eos": True, "tenant": self._tenant}
        return {**common, **case.sampling}


Run = Callable[[Arena, Sequence[Ids], Case, int], Tally]


@dataclass(frozen=True)
class Way:
    """A way to decode; one that `is_alone` takes a single prompt."""

    name: str
    text: str
    run: Run
    is_alone: bool
    applies_to: Callable[[Case], bool] = lambda case: True


def ways_for(drafters: Sequence[str], cases: Sequence[Case], prefill_is_decoding: bool) -> list[Way]:
    """The ways to try; `cases` are for requests of several kinds in one batch."""
    found = [
        Way(
            f"{name} alone",
            f"{name}, {_BUDGET} draft nodes a step",
            partial(_alone, (name,), FixedPacer(_BUDGET)),
            True,
        )
        for name in drafters
    ]
    if drafters:
        found += [
            Way("all, paced", "all drafters, the pacer decides", partial(_alone, tuple(drafters), None), True),
            Way("all, paced batch", "the same, three prompts in one batch", partial(_batch, drafters, None), False),
            Way(
                "all, large trees",
                f"all drafters, {_LARGE_BUDGET} draft nodes a step, three prompts in one batch",
                partial(_batch, drafters, FixedPacer(_LARGE_BUDGET)),
                False,
            ),
        ]
    found += [
        Way("random trees", "the truth hidden in random trees", _random_trees, True),
        Way("random trees, batch", "the same, three prompts in one batch", _random_trees, False),
        Way(
            "streams that join",
            "three streams, each beginning while the others run, each with other sampling parameters",
            partial(_streams, drafters, cases),
            False,
        ),
        Way(
            "cached prefix",
            "prompts read before, whole and cut short, found in the prefix cache, in one batch",
            partial(_cached, drafters),
            False,
        ),
        Way(
            "parting prefixes",
            "prompts that begin alike and then part, in one batch, and samples of one of them",
            partial(_parting, drafters),
            False,
        ),
        Way("samples", f"{_SAMPLES} samples of a prompt, n = {_SAMPLES}", partial(_samples, drafters), True),
    ]
    if prefill_is_decoding:
        found.append(
            Way(
                "continued",
                "requests that continue an output, its beginning now part of their prompts, in one batch",
                partial(_continued, drafters),
                True,
                lambda case: not any(case.sampling.get(name) for name in _COUNTING),
            )
        )
    return found


def _alone(
    drafters: Sequence[str], pacer: Pacer | None, arena: Arena, prompts: Sequence[Ids], case: Case, seed: int
) -> Tally:
    tally = Tally()
    for prompt in prompts:
        tally.merge(_batch(drafters, pacer, arena, [prompt], case, seed))
    return tally


def _batch(
    drafters: Sequence[str], pacer: Pacer | None, arena: Arena, prompts: Sequence[Ids], case: Case, seed: int
) -> Tally:
    expected = [arena.plain(prompt, case, seed) for prompt in prompts]
    # A prediction with a mistake in it, for whoever drafts from one; the others do not look.
    hint = [token for i, token in enumerate(expected[0].tokens) if i != 4]
    options = arena.options(case, seed) | ({"prediction": hint} if hint else {})
    return arena.compare(prompts, expected, drafters, pacer or arena.pacer, options)


def _random_trees(arena: Arena, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    expected = [arena.plain(prompt, case, seed) for prompt in prompts]
    truth = {prompt: trace.tokens for prompt, trace in zip(prompts, expected, strict=True)}
    arena.trees.trees = RandomTrees(truth, arena.llm.target.vocab_size, seed)
    return arena.compare(prompts, expected, [arena.trees], FixedPacer(_LARGE_BUDGET), arena.options(case, seed))


def _samples(drafters: Sequence[str], arena: Arena, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Sample 0 is also the output of a request for one."""
    alone = [arena.plain(prompt, case, seed) for prompt in prompts]
    options = arena.options(case, seed) | {"n": _SAMPLES}
    expected = arena.plain_samples(prompts, options)
    expected[::_SAMPLES] = alone
    return arena.compare(prompts, expected, drafters, FixedPacer(_BUDGET), options)


def _parting(drafters: Sequence[str], arena: Arena, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Where they part, and how long they are, is drawn; each is asked for by a tenant who has read the others."""
    parted = parted_prompts(prompts, arena.llm.target.max_length - arena.max_tokens, np.random.default_rng([seed, 7]))
    options = arena.options(case, seed) | {"tenant": fresh_tenant()}
    expected = [arena.plain(prompt, case, seed) for prompt in parted]
    tally = arena.compare(parted, expected, drafters, FixedPacer(_BUDGET), options)
    tally.merge(arena.compare(parted, expected, (), FixedPacer(0), options))
    tally.merge(_samples(drafters, arena, parted[:1], case, seed))
    return tally


def _continued(drafters: Sequence[str], arena: Arena, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """What was emitted after the first few tokens is emitted again when these are part of the prompt."""
    tally = Tally()
    for prompt in prompts:
        whole = arena.plain(prompt, case, seed)
        longest = len(whole.tokens) // 2
        starts = sorted({1, longest // 2, longest} - {0})
        most = len(whole.tokens) - longest
        continued = [(*prompt, *whole.tokens[:start]) for start in starts]
        expected = [whole.tail(start, most) for start in starts]
        options = arena.options(case, seed) | {"max_tokens": most}
        tally.merge(arena.compare(continued, expected, drafters, FixedPacer(_BUDGET), options))
    return tally


def _cached(drafters: Sequence[str], arena: Arena, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Prompts, and some that begin like them, for a tenant who reads them for the first time, and then again."""
    options = arena.options(case, seed) | {"tenant": fresh_tenant()}
    asked = list(dict.fromkeys([*prompts, *(prompt[: -(len(prompt) // 3)] or prompt for prompt in prompts)]))
    expected = [arena.plain(prompt, case, seed) for prompt in asked]
    tally = Tally()
    for chosen in ([], drafters):
        tally.merge(arena.compare(asked, expected, chosen, FixedPacer(_BUDGET), options))
    return tally


def _streams(
    drafters: Sequence[str], cases: Sequence[Case], arena: Arena, prompts: Sequence[Ids], case: Case, seed: int
) -> Tally:
    first = next((i for i, one in enumerate(cases) if one.name == case.name), 0)
    mixed = [cases[(first + i) % len(cases)] for i in range(len(prompts))]
    expected = [arena.plain(prompt, kind, seed) for prompt, kind in zip(prompts, mixed, strict=True)]
    arena.pace(arena.pacer, expected)
    open_streams: list[Stream] = []
    for prompt, kind in zip(prompts, mixed, strict=True):
        options = arena.options(kind, seed)
        open_streams.append(arena.llm.stream(list(prompt), drafters=list(drafters), **options))
        for stream in open_streams:
            for _ in islice(stream, _HEAD_START):
                pass
    for stream in open_streams:
        for _ in stream:
            pass
    return arena.tally(expected)
