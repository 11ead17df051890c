"""A thousand candidates no better than what drafts, on real drafts of a small world: hardly any gets through."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from learning.world import ANCHORS, Traffic, V, domain, tokens_per_step, weights
from paceline.heads.weights import Floats, Weights
from paceline.learning.anchors import Anchor, Batch
from paceline.learning.cases import MOST_SAID, Tokens
from paceline.learning.gate import Gate, predicted_anchors
from paceline.learning.scoring import accepted

ALPHA, EACH, REQUESTS = 0.05, 250, 40
BOUND = MOST_SAID
KINDS = ("noise", "permuted", "stale", "overfit")
Tables = NDArray[np.float32]  # (candidates, V, V): what a candidate's transition adds, by the token before


@cache
def laws() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return domain(1), domain(2)


@cache
def own() -> Weights:
    """The incumbent's, made for the very domain that is served."""
    return weights(laws()[0])


def tables(first: Floats, second: Floats) -> Tables:
    return first @ np.swapaxes(second, -1, -2)


@cache
def candidates(kind: str) -> Tables:
    """Bad ones of a kind, each more or less so."""
    rng = np.random.default_rng(KINDS.index(kind))
    first, second = own().w1, own().w2
    amount = np.linspace(0.2, 1.5, EACH, dtype=np.float32)[:, None, None]
    if kind == "noise":
        return tables(first, second + amount * second.std() * rng.normal(size=(EACH, *second.shape)).astype(np.float32))
    if kind == "permuted":
        orders = np.stack([rng.permutation(V) for _ in range(EACH)])
        is_moved = rng.random((EACH, V, 1)) < amount
        return tables(first, np.where(is_moved, second[orders], second))
    if kind == "stale":
        other = weights(laws()[1])
        return tables(first + amount * other.w1, second + amount * other.w2)
    return np.stack([memorised(window(i)) for i in range(EACH)])


def window(number: int) -> list[Anchor]:
    """What an overfit candidate has learnt from: three requests."""
    return Traffic(laws()[0], laws()[0], 10_000 + number).anchors(3 * ANCHORS)


def memorised(anchors: list[Anchor]) -> Tables:
    """The incumbent's, with what followed in a window made likelier wherever it did."""
    added = tables(own().w1, own().w2).copy()
    for anchor in anchors:
        for slot, place in enumerate(anchor.came.tolist()):
            if place >= 0:
                added[anchor.before[slot], anchor.ids[slot, place]] += 5.0
    return added


def tokens(added: Tables, anchors: list[Anchor]) -> NDArray[np.float64]:
    """Tokens (candidates, requests) that each would have brought, by `accepted` itself."""
    batch = Batch.of(anchors)
    before, ids = batch.before[..., None], batch.ids
    counts = [accepted(batch, batch.logits + one[before, ids]) + 1 for one in added]
    return np.stack(counts).reshape(len(added), -1, ANCHORS).sum(-1).astype(np.float64)


def advantages(added: Tables, anchors: list[Anchor]) -> NDArray[np.float64]:
    """Differences (candidates, requests) that the gate sees."""
    theirs, ours = tokens(added, anchors), tokens(tables(own().w1, own().w2)[None], anchors)
    return np.array([[Tokens(*pair).verdict for pair in zip(row, ours[0], strict=True)] for row in theirs])


def promoted(differences: NDArray[np.float64]) -> int:
    """How many are, each the first of its line, whenever one looks."""
    count = 0
    for row in differences.tolist():
        gate = Gate(1, BOUND, 0.0, ALPHA)
        count += any(gate.see(one) or gate.is_passed for one in row)
    return count


@cache
def traffic() -> list[Anchor]:
    return Traffic(laws()[0], laws()[0], 77).anchors(REQUESTS * ANCHORS)


@cache
def seen(kind: str) -> NDArray[np.float64]:
    return advantages(candidates(kind), traffic())


def test_what_is_planted_is_bad() -> None:
    later = Traffic(laws()[0], laws()[0], 78).anchors(80 * ANCHORS)
    for kind in KINDS:
        some = candidates(kind)[:: EACH // 10]
        assert advantages(some, later).mean(1).max() < 0.02, kind


def test_a_thousand_bad_candidates_do_not_get_through() -> None:
    counts = {kind: promoted(seen(kind)) for kind in KINDS}
    assert sum(counts.values()) <= ALPHA * EACH * len(KINDS), counts
    assert binom.sf(sum(counts.values()) - 1, EACH * len(KINDS), ALPHA) > 0.5, counts


def test_in_one_line_not_one_of_the_thousand_does() -> None:
    rows = np.concatenate([seen(kind) for kind in KINDS])
    for attempt, row in enumerate(np.random.default_rng(0).permutation(rows).tolist(), 1):
        gate = Gate(attempt, BOUND, 0.0, ALPHA)
        assert not any(gate.see(one) or gate.is_passed for one in row)


def test_bets_on_the_training_window_are_caught() -> None:
    """The same overfit candidates, judged on what they learnt from: most get through, so the figure can fail."""
    few, times = 20, REQUESTS // 3
    rows = [advantages(candidates("overfit")[i : i + 1], window(i) * times) for i in range(few)]
    assert promoted(np.concatenate(rows)) > 0.9 * few


@pytest.mark.parametrize("seed", range(4))
def test_a_good_one_is_promoted_within_the_predicted_number_of_requests(seed: int) -> None:
    """In the other domain, by another seed each time: what was made for it, against what was not."""
    anchors = Traffic(laws()[1], laws()[0], 500 + seed).anchors(80 * ANCHORS)
    good = weights(laws()[1])
    row = advantages(tables(good.w1, good.w2)[None], anchors)[0]
    predicted = predicted_anchors(row.mean(), row.std(), BOUND, alpha=ALPHA)
    gate = Gate(1, BOUND, 0.0, ALPHA)
    took = next(i for i, one in enumerate(row.tolist(), 1) if gate.see(one) or gate.is_passed)
    assert took < 1.5 * predicted + 4
    assert tokens_per_step(good, anchors) > tokens_per_step(own(), anchors)
