"""The reference beside Paceline's own law, on logits with ties as bfloat16 has them."""

from __future__ import annotations

import numpy as np
import pytest

from paceline.certify.plan import Case, cases_for
from paceline.certify.reference import ReferenceLaw, covers
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext, softmax

PROMPT, GENERATED = (3, 1, 3, 7), (5, 1, 5)
CASES = [case for case in cases_for(40, [PROMPT]) if covers(case)]


def laws(case: Case, generated: tuple[int, ...]) -> tuple[ReferenceLaw, Sampler]:
    sampling = {name: value for name, value in case.sampling.items() if name != "ignore_eos"}
    own = Sampler(SamplingParams(**sampling), SamplerContext(40, frozenset({0})), PROMPT, 1)
    for token in generated:
        own.advance(token)
    return ReferenceLaw(sampling, PROMPT, [0]), own


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seed", range(5))
def test_the_chances_are_those_of_the_own_law(case: Case, seed: int):
    row = np.random.default_rng(seed).normal(scale=2.0, size=40).astype(np.float32)
    reference, own = laws(case, GENERATED)
    if case.is_greedy:
        assert reference.scores(GENERATED, row).argmax() == own.process(row).argmax()
    else:
        ours = softmax(own.process(row).astype(np.float64))
        np.testing.assert_allclose(reference.chances(GENERATED, row).values, ours, rtol=1e-9, atol=1e-12)


def test_a_tie_at_the_edge_of_top_p_is_one_token():
    row = np.array([4.0, 3.0, 3.0, 3.0, -9.0], np.float32)
    reference = ReferenceLaw({"temperature": 1.0, "top_p": 0.6}, (0,), [])
    chances = reference.chances((), row)
    assert {chances.stands_for(token) for token in (1, 2, 3)} == {1}
    assert chances.values[[0, 1]].sum() == pytest.approx(1.0)
    assert chances.values[4] == 0.0


def test_a_grammar_is_not_covered():
    names = {case.name for case in cases_for(40, [PROMPT])}
    assert names - {case.name for case in CASES} == {"grammar"}
