"""The outputs of many seeded requests against the exact distribution over all outputs of three tokens.

Each test fails with probability 1e-6 if the
law is right, for seeds drawn once and fixed since. A temperature that is off by a third shows.
"""

from __future__ import annotations

import pytest

from law.reference import chi_square, enumerate_outputs
from law.support import DRAFTERS, KINDS, Kind, decode, target_of
from paceline.engine.request import Drafter

VOCAB, LENGTH, COUNT = 5, 3, 1000
FALSE_ALARM = 1e-6


def outputs_of(kind: Kind, drafter: Drafter, target, first_seed: int) -> list[tuple[int, ...]]:
    seeds = range(first_seed, first_seed + COUNT)
    return decode(target, [kind.request(VOCAB, LENGTH, seed=s, drafters=[drafter]) for s in seeds])


@pytest.mark.parametrize("name", KINDS)
def test_outputs_follow_the_exact_law_with_each_parameter(name: str) -> None:
    target, kind = target_of(VOCAB), KINDS[name]
    expected = enumerate_outputs(kind, target.logits, LENGTH)
    assert sum(expected.values()) == pytest.approx(1)
    outputs = outputs_of(kind, DRAFTERS["branching"](target), target, first_seed=20_000)
    assert chi_square(outputs, expected) > FALSE_ALARM


@pytest.mark.parametrize("name", DRAFTERS)
def test_outputs_follow_the_exact_law_with_each_drafter(name: str) -> None:
    target, kind = target_of(VOCAB, seed=1), KINDS["frequency_penalty"]
    expected = enumerate_outputs(kind, target.logits, LENGTH)
    first = 100_000 * (1 + [*DRAFTERS].index(name))
    assert chi_square(outputs_of(kind, DRAFTERS[name](target), target, first), expected) > FALSE_ALARM


def test_the_samples_of_one_seed_follow_the_exact_law() -> None:
    target, kind = target_of(VOCAB, seed=4), KINDS["temperature 1"]
    requests = [kind.request(VOCAB, LENGTH, seed=7, sample=i) for i in range(COUNT)]
    assert chi_square(decode(target, requests), enumerate_outputs(kind, target.logits, LENGTH)) > FALSE_ALARM


def test_the_chi_square_test_sees_a_law_that_is_a_little_off() -> None:
    target = target_of(VOCAB)
    outputs = outputs_of(Kind({"temperature": 1.35}), DRAFTERS["empty"](target), target, first_seed=20_000)
    expected = enumerate_outputs(KINDS["temperature 1"], target.logits, LENGTH)
    assert chi_square(outputs, expected) < FALSE_ALARM
