"""Expected steps through a text against steps that are drawn, and against what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.training.packing import pack
from paceline.training.walking import steps_through, walk
from training.test_training import Oracle, counting


@pytest.mark.parametrize("seed", range(3))
def test_expected_steps_are_those_that_are_drawn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    chances = draw.random((11, 4)) ** 0.5
    chances[-3:, 1:] = 0.0  # the text ends
    counts = []
    for _ in range(6000):
        place = steps = 0
        while place < len(chances):
            right = (draw.random(4) < chances[place]).cumprod().sum()
            place, steps = place + 1 + int(right), steps + 1
        counts.append(steps)
    assert steps_through(chances) == pytest.approx(np.mean(counts), abs=4 * np.std(counts) / 6000**0.5)


@pytest.mark.parametrize(("depth", "late", "tau"), [(7, 0, 19 / 3), (3, 0, 19 / 5), (7, 1, 1.0)])
def test_who_knows_everything_takes_the_longest_steps(depth: int, late: int, tau: float) -> None:
    """20 tokens: one of the prompt is pending, so 19 are to come: in steps of 8, 8 and 3 by 7 drafts."""
    documents = counting(3, 21, 0.7)
    walked = walk(Oracle(depth, late), [pack(documents, 64)])
    assert {tokens for tokens, _ in walked.documents.values()} == {19.0}
    assert len(walked.documents) == 3
    assert walked.by_kind(documents) == {("count", 0.7): pytest.approx(tau, abs=1e-3)}
    assert walked.tau == pytest.approx(tau, abs=1e-3)
