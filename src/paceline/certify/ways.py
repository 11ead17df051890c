"""The ways to decode that must not make a difference: drafters, budgets, batches, arrivals, streams, samples.

Each way decodes prompts in one kind of sampling beside the plain outputs that are expected, and tallies what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from paceline.certify.harness import Harness, Ids, Tally, prompt_room
from paceline.certify.parting import parted_prompts
from paceline.certify.plan import Case
from paceline.engine.ports import Pacer
from paceline.engine.request import Drafter, fresh_tenant
from paceline.pacing import FixedPacer
from paceline.streams import Stream
from paceline.testing import RandomTrees
from paceline.testing.recorder import Trace

_BUDGET, _LARGE_BUDGET = 7, 15
_HEAD_START = 5  # tokens that a stream has emitted when the next one joins
_SAMPLES = 3
_COUNTING = ("presence_penalty", "frequency_penalty", "min_tokens", "regex")  # they know where the prompt ended


Run = Callable[[Harness, Sequence[Ids], Case, int], Tally]


@dataclass(frozen=True)
class Way:
    """A way to decode; one that `is_alone` takes a single prompt.

    It has shown nothing where its `evidence`, a count of `Tally`, is 0. A certificate stands only on ways that have
    shown something if they are `required`.
    """

    name: str
    text: str
    run: Run
    is_alone: bool
    applies_to: Callable[[Case], bool] = lambda case: True
    evidence: str = "draft_tokens"
    is_required: bool = False

    def is_shown_by(self, tally: Tally) -> bool:
        """Whether what this way is about has happened."""
        return int(getattr(tally, self.evidence)) > 0


def ways_for(drafters: Sequence[str], cases: Sequence[Case], prefill_is_decoding: bool) -> list[Way]:
    """The ways to try; `cases` are for requests of several kinds in one batch."""
    found = [*_drafted_ways(drafters), *_paced_ways(drafters)]
    found += [
        Way("random trees", "the truth hidden in random trees", _random_trees, True),
        Way("random trees, batch", "the same, three prompts in one batch", _random_trees, False),
        Way(
            "streams that join",
            "three streams, paced, each beginning while the others run, each with other sampling parameters",
            partial(_streams, drafters, cases),
            False,
        ),
        Way(
            "cached prefix",
            "prompts read before, whole and cut short, found in the prefix cache, in one batch",
            partial(_cached, drafters),
            False,
            evidence="cached_tokens",
        ),
        Way(
            "parting prefixes",
            "prompts that begin alike and then part, in one batch, and samples of one of them",
            partial(_parting, drafters),
            False,
            evidence="cached_tokens",
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


def _drafted_ways(drafters: Sequence[str]) -> list[Way]:
    """Each drafter alone, and all of them together."""
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
            Way(
                "all, large trees",
                f"all drafters, {_LARGE_BUDGET} draft nodes a step, three prompts in one batch",
                partial(_batch, drafters, FixedPacer(_LARGE_BUDGET)),
                False,
            ),
            Way(
                "all, paced as here",
                "all drafters, the pacer decides by what forwards cost on this machine",
                partial(_alone, tuple(drafters), None),
                True,
            ),
        ]
    return found


def _paced_ways(drafters: Sequence[str]) -> list[Way]:
    """The pacer where drafts pay, without which nothing is shown of it."""
    return [
        Way(
            "all, paced",
            "all drafters and random trees, the pacer decides as on a slow machine, where drafts pay",
            partial(_paced, drafters),
            True,
            is_required=True,
        ),
        Way(
            "all, paced batch",
            "the same, three prompts in one batch",
            partial(_paced, drafters),
            False,
            is_required=True,
        ),
    ]


def _alone(
    drafters: Sequence[str], pacer: Pacer | None, harness: Harness, prompts: Sequence[Ids], case: Case, seed: int
) -> Tally:
    tally = Tally()
    for prompt in prompts:
        tally.merge(_batch(drafters, pacer, harness, [prompt], case, seed))
    return tally


def _batch(
    drafters: Sequence[str | Drafter],
    pacer: Pacer | None,
    harness: Harness,
    prompts: Sequence[Ids],
    case: Case,
    seed: int,
) -> Tally:
    expected = [harness.plain(prompt, case, seed) for prompt in prompts]
    # A prediction with a mistake in it, for whoever drafts from one; the others do not look.
    hint = [token for i, token in enumerate(expected[0].tokens) if i != 4]
    options = harness.options(case, seed) | ({"prediction": hint} if hint else {})
    return harness.compare(prompts, expected, drafters, pacer or harness.pacer, options)


def _paced(drafters: Sequence[str], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Random trees, which hold the truth, take part: so there are drafts to decide about on every text."""
    _grow_trees(harness, prompts, [harness.plain(prompt, case, seed) for prompt in prompts], seed)
    return _batch([*drafters, harness.trees], harness.slow_pacer, harness, prompts, case, seed)


def _random_trees(harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    expected = [harness.plain(prompt, case, seed) for prompt in prompts]
    _grow_trees(harness, prompts, expected, seed)
    return harness.compare(prompts, expected, [harness.trees], FixedPacer(_LARGE_BUDGET), harness.options(case, seed))


def _grow_trees(harness: Harness, prompts: Sequence[Ids], expected: Sequence[Trace], seed: int) -> None:
    """Let trees be grown around these outputs from now on."""
    truth = {prompt: trace.tokens for prompt, trace in zip(prompts, expected, strict=True)}
    harness.trees.trees = RandomTrees(truth, harness.llm.target.vocab_size, seed)


def _samples(drafters: Sequence[str], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Sample 0 is also the output of a request for one."""
    alone = [harness.plain(prompt, case, seed) for prompt in prompts]
    options = harness.options(case, seed) | {"n": _SAMPLES}
    expected = harness.plain_samples(prompts, options)
    expected[::_SAMPLES] = alone
    return harness.compare(prompts, expected, drafters, FixedPacer(_BUDGET), options)


def _parting(drafters: Sequence[str], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Where they part, and how long they are, is drawn; each is asked for by a tenant who has read the others."""
    room = prompt_room(harness.llm.target, harness.max_tokens)
    parted = parted_prompts(prompts, room, np.random.default_rng([seed, 7]))
    options = harness.options(case, seed) | {"tenant": fresh_tenant()}
    expected = [harness.plain(prompt, case, seed) for prompt in parted]
    tally = harness.compare(parted, expected, drafters, FixedPacer(_BUDGET), options)
    tally.merge(harness.compare(parted, expected, (), FixedPacer(0), options))
    tally.merge(_samples(drafters, harness, parted[:1], case, seed))
    return tally


def _continued(drafters: Sequence[str], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """What was emitted after the first few tokens is emitted again when these are part of the prompt."""
    tally = Tally()
    for prompt in prompts:
        whole = harness.plain(prompt, case, seed)
        longest = len(whole.tokens) // 2
        starts = sorted({1, longest // 2, longest} - {0})
        most = len(whole.tokens) - longest
        continued = [(*prompt, *whole.tokens[:start]) for start in starts]
        expected = [whole.tail(start, most) for start in starts]
        options = harness.options(case, seed) | {"max_tokens": most}
        tally.merge(harness.compare(continued, expected, drafters, FixedPacer(_BUDGET), options))
    return tally


def _cached(drafters: Sequence[str], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int) -> Tally:
    """Prompts, and some that begin like them, for a tenant who reads them for the first time, and then again."""
    options = harness.options(case, seed) | {"tenant": fresh_tenant()}
    asked = list(dict.fromkeys([*prompts, *(prompt[: -(len(prompt) // 3)] or prompt for prompt in prompts)]))
    expected = [harness.plain(prompt, case, seed) for prompt in asked]
    tally = Tally()
    for chosen in ([], drafters):
        tally.merge(harness.compare(asked, expected, chosen, FixedPacer(_BUDGET), options))
    return tally


def _streams(
    drafters: Sequence[str], cases: Sequence[Case], harness: Harness, prompts: Sequence[Ids], case: Case, seed: int
) -> Tally:
    first = next((i for i, one in enumerate(cases) if one.name == case.name), 0)
    mixed = [cases[(first + i) % len(cases)] for i in range(len(prompts))]
    expected = [harness.plain(prompt, kind, seed) for prompt, kind in zip(prompts, mixed, strict=True)]
    _grow_trees(harness, prompts, expected, seed)
    harness.pace(harness.slow_pacer, expected)
    open_streams: list[Stream] = []
    for prompt, kind in zip(prompts, mixed, strict=True):
        options = harness.options(kind, seed)
        open_streams.append(harness.stream(list(prompt), drafters=[*drafters, harness.trees], **options))
        for stream in open_streams:
            for _ in islice(stream, _HEAD_START):
                pass
    for stream in open_streams:
        for _ in stream:
            pass
    return harness.tally(expected)
