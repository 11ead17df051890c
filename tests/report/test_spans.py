"""The rule of areas of uncertainty: what it says of small texts, and what holds of it always."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.report.spans import MIN_TOKENS, hysteresis, smoothed, uncertain_spans
from report.support import saying

levels = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0]), max_size=24)
LOW, HIGH = 1.0, 2.0


@pytest.mark.parametrize(
    ("values", "gap", "least", "spans"),
    [
        ([], 0, 1, []),
        ([0, 1, 1, 0], 0, 1, []),  # never high
        ([0, 1, 3, 1, 0], 0, 1, [(1, 4)]),  # the low threshold carries it on either side
        ([3], 0, 1, [(0, 1)]),
        ([2, 0, 2], 0, 1, [(0, 1), (2, 3)]),
        ([2, 0, 2], 1, 1, [(0, 3)]),
        ([2, 0, 0, 2], 1, 1, [(0, 1), (3, 4)]),
        ([2, 0, 1, 0, 2], 1, 1, [(0, 1), (4, 5)]),  # what was never high joins nothing
        ([2, 0, 2], 1, 3, [(0, 3)]),  # joined before measured
        ([2, 2, 0], 0, 3, []),
    ],
)
def test_hysteresis_by_example(values, gap, least, spans) -> None:
    assert hysteresis(values, LOW, HIGH, gap, least) == spans


def by_hand(values: list[float], gap: int, least: int) -> list[tuple[int, int]]:
    """The rule again, token by token."""
    inside = [False] * len(values)
    for i, value in enumerate(values):
        if value >= HIGH:
            for way in (-1, 1):
                j = i
                while 0 <= j < len(values) and values[j] >= LOW:
                    inside[j] = True
                    j += way
    members = [i for i, is_in in enumerate(inside) if is_in]
    spans: list[list[int]] = []
    for i in members:
        if spans and i - spans[-1][-1] <= gap + 1:
            spans[-1].append(i)
        else:
            spans.append([i])
    return [(s[0], s[-1] + 1) for s in spans if s[-1] + 1 - s[0] >= least]


@given(levels, st.integers(0, 3), st.integers(1, 4))
def test_hysteresis_is_the_rule_followed_token_by_token(values, gap, least) -> None:
    assert hysteresis(values, LOW, HIGH, gap, least) == by_hand(values, gap, least)


@given(levels, st.integers(0, 3), st.integers(1, 4), st.data())
def test_more_uncertainty_never_takes_a_token_out_of_a_span(values, gap, least, data) -> None:
    higher = [value + data.draw(st.sampled_from([0.0, 0.0, 1.0])) for value in values]

    def covered(some: list[float]) -> set[int]:
        return {i for start, end in hysteresis(some, LOW, HIGH, gap, least) for i in range(start, end)}

    assert covered(values) <= covered(higher)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30))
def test_smoothing_stays_within_the_neighbours(values) -> None:
    smooth = smoothed(values)
    assert len(smooth) == len(values)
    for i, level in enumerate(smooth):
        around = values[max(i - 1, 0) : i + 2]
        assert min(around) - 1e-9 <= level <= max(around) + 1e-9


@given(st.lists(st.floats(0, 8), max_size=60))
def test_spans_of_an_output_are_apart_in_order_and_long_enough(entropies) -> None:
    output = saying(["x"] * len(entropies), entropies)
    spans = uncertain_spans(output)
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    for span in spans:
        assert len(span) >= MIN_TOKENS
        assert 0 <= span.start < span.end <= len(entropies)
        assert span.max_entropy == max(entropies[span.start : span.end])
        assert span.reasons


def test_a_sure_text_has_no_span_and_a_text_unsure_throughout_is_one() -> None:
    assert uncertain_spans(saying(["x"] * 40, [0.4] * 40)) == []
    assert [(s.start, s.end) for s in uncertain_spans(saying(["x"] * 40, [5.0] * 40))] == [(0, 40)]


def test_one_unsure_token_alone_is_no_area() -> None:
    assert uncertain_spans(saying(["x"] * 20, [0.1] * 10 + [2.5] + [0.1] * 9)) == []


def test_a_span_says_its_text_and_why() -> None:
    entropies = [0.1] * 10 + [3.0, 4.0, 2.0] + [0.1] * 10
    [span] = uncertain_spans(saying([f" w{i}" for i in range(23)], entropies))
    assert (span.start, span.end) == (9, 13)  # at 9 the mean with its neighbours is 1.07, at 13 it is 0.73
    assert span.text == " w9 w10 w11 w12"
    assert span.mean_entropy == pytest.approx(2.275)
    assert span.mean_disagreement is None
    assert span.reasons == ("entropy 2.3 nats on average, 4.0 at most; the text outside such areas has 0.1",)
