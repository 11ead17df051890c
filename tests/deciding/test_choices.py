"""The probability of a choice as a text, by enumerating all texts; and what callers may write."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.deciding.choices import masses, read_choices, tempered
from paceline.errors import RequestError

VOCAB, DEPTH = 3, 5
Path = tuple[int, ...]


def chance(path: Path) -> float:
    """A law in which each token depends on all before it."""
    found = 1.0
    for end, token in enumerate(path):
        weights = np.exp(np.random.default_rng([end, *path[:end]]).normal(size=VOCAB))
        found *= weights[token] / weights.sum()
    return float(found)


paths = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(paths, st.sampled_from("abc"), min_size=1, max_size=8))
def test_a_text_belongs_to_the_longest_spelling_that_it_begins_with(owners: dict[Path, str]) -> None:
    expected = dict.fromkeys("abc", 0.0)
    for text in itertools.product(range(VOCAB), repeat=DEPTH):
        longest = next((text[:end] for end in range(DEPTH, 0, -1) if text[:end] in owners), None)
        if longest is not None:
            expected[owners[longest]] += chance(text)
    found = masses(owners, {path: math.log(chance(path)) for path in owners}, "abc")
    assert {name: math.exp(value) for name, value in found.items()} == pytest.approx(expected, abs=1e-12)


def test_long_texts_do_not_underflow() -> None:
    found = masses({(1,): "a", (2,): "b"}, {(1,): -5000.0, (2,): -5001.0}, "ab")
    assert found == {"a": -5000.0, "b": -5001.0}
    assert tempered(found, 1.0)["a"] == pytest.approx(1 / (1 + math.exp(-1)))
    assert tempered(found, 2.0)["a"] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_a_text_stands_for_itself_with_and_without_a_space() -> None:
    both, spelt = read_choices([" yes", ["no", " No", "no"]])
    assert (both.name, both.spellings) == ("yes", (" yes", "yes"))
    assert (spelt.name, spelt.spellings) == ("no", ("no", " No"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ("yes", "choices is 'yes'; allowed: a list of at least two"),
        (["yes"], "choices has 1; allowed: at least two"),
        (["yes", 3], r"choices\[1\] is 3; allowed: a text, or a list"),
        (["yes", " "], r"choices\[1\] is ' '; allowed"),
        (["yes", []], r"choices\[1\] is \[\]; allowed"),
        (["yes", " yes"], "twice"),
        (["yes", ["no", "yes "]], "'yes ' stands for 'yes' and 'no'"),
    ],
)
def test_what_is_no_choice_is_refused(choices: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_choices(choices)


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(RequestError, match="any probability"):
        tempered({"a": -math.inf, "b": -math.inf}, 1.0)
