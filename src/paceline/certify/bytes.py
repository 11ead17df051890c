"""Same bytes: plain against speculative decoding, every token and every logit bit, over ways and kinds of sampling."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from paceline.certify.divergence import Divergence, explain
from paceline.certify.harness import Harness, Ids, Tally
from paceline.certify.plan import Case
from paceline.certify.ways import Way

_GROUP = 3  # prompts that are decoded together
LONG = 150  # tokens that every third prompt is brought to: more than two tiles of attention


@dataclass(frozen=True)
class Comparison:
    """One unit of the check: a way, a kind of sampling, prompts, and the round, whose seed is its own."""

    way: Way
    case: Case
    prompts: tuple[Ids, ...]
    round: int


@dataclass
class BytesResult:
    """What the comparisons have shown."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)  # (way, case)
    divergence: Divergence | None = None  # the first
    num_comparisons: int = 0
    fingerprint: str = ""  # of all plain tokens and logit bits: the same on the same machine

    @property
    def total(self) -> Tally:
        """All tallies as one."""
        total = Tally()
        for tally in self.tallies.values():
            total.merge(tally)
        return total

    @property
    def is_equal(self) -> bool:
        """True if something was compared, drafts were accepted on the way, and every bit is that of plain decoding."""
        total = self.total
        return total.is_equal and total.accepted_draft_tokens > 0


def comparisons(
    ways: Sequence[Way], cases: Sequence[Case], prompts: Sequence[Ids], seed: int, longest: int = LONG
) -> Iterator[Comparison]:
    """Comparisons without end, the most telling first: every way and every case once, then all of them, round by round.

    Each round has other prompts, prolonged to `longest` tokens at most, and another seed. The order is a function of
    the arguments.
    """
    rng = np.random.default_rng(seed)
    cells = list(itertools.product(ways, cases))
    first = least_coverage(ways, cases)
    for number in itertools.count():
        group = group_of(prompts, number, longest)
        order = [cells[index] for index in rng.permutation(len(cells))]
        if number == 0:
            order = first + [cell for cell in order if cell not in first]
        for i, (way, case) in enumerate(order):
            if way.applies_to(case):
                yield Comparison(way, case, group[i % len(group) :][:1] if way.is_alone else group, number)


def least_coverage(ways: Sequence[Way], cases: Sequence[Case]) -> list[tuple[Way, Case]]:
    """Cells in which every way and every case occurs."""
    found: list[tuple[Way, Case]] = []
    for i in range(max(len(ways), len(cases))):
        way, case = ways[i % len(ways)], cases[i % len(cases)]
        able = next(one for one in ways if one.applies_to(case))
        fitting = next(one for one in cases if way.applies_to(one))
        wanted = [(way, case)] if way.applies_to(case) else [(able, case), (way, fitting)]
        found += [cell for cell in wanted if cell not in found]
    return found


def group_of(prompts: Sequence[Ids], number: int, longest: int = LONG) -> tuple[Ids, ...]:
    """The prompts of a round, distinct; the last is followed by others until it is long."""
    at = [prompts[(number * _GROUP + i) % len(prompts)] for i in range(_GROUP)]
    following = itertools.islice(itertools.cycle(prompts), number * _GROUP + _GROUP, None)
    while len(at[-1]) < longest:
        at[-1] = (*at[-1], *next(following))[:longest]
    return tuple(dict.fromkeys(at))


class BytesCheck:
    """Runs comparisons over a harness, one at a time."""

    def __init__(self, harness: Harness, seed: int) -> None:
        self._harness, self._seed = harness, seed
        self.result = BytesResult()

    def run(self, found: Iterator[Comparison], goes_on: Callable[[BytesResult], bool]) -> BytesResult:
        """Run comparisons for as long as `goes_on` says so."""
        while goes_on(self.result):
            self._run(next(found))
        self.result.fingerprint = self._fingerprint()
        return self.result

    def _run(self, one: Comparison) -> None:
        tally = one.way.run(self._harness, one.prompts, one.case, self._seed + one.round)
        self.result.tallies.setdefault((one.way.name, one.case.name), Tally()).merge(tally)
        self.result.num_comparisons += 1
        if tally.mismatches and self.result.divergence is None:
            label = f"{one.way.text}; {one.case.name}"
            self.result.divergence = explain(self._harness.llm, tally.mismatches[0], label)

    def _fingerprint(self) -> str:
        found = hashlib.sha256()
        for (prompt, case, seed), trace in self._harness.plain_traces.items():
            found.update(repr((prompt, case, seed, trace.tokens)).encode())
            found.update(b"".join(trace.digests))
        return found.hexdigest()
