"""Over large vocabularies the law takes short cuts. None changes a token or a bit of the noise.

The plain formulas stand here; parts are made small, so that the short cuts are taken over small arrays too.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import RequestError
from paceline.params import SamplingParams
from paceline.sampling import noise as noise_module
from paceline.sampling import sampler as law_module
from paceline.sampling.noise import Noise, exact_noise, largest, noise_ceiling
from paceline.sampling.sampler import Sampler, SamplerContext, truncate

FORBIDDEN = float("-inf")
UNEVEN = 52  # tokens in a part: a multiple of four, as the blocks of the generator are, and of nothing else


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (law_module, noise_module):
        monkeypatch.setattr(module, "PART", UNEVEN)
    monkeypatch.setattr(noise_module, "_FEW", 5)


def plain_noise(seed: int, sample: int, position: int, size: int) -> np.ndarray:
    key = np.array([seed % 2**64, sample], np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, position, 0, 0], np.uint64)).random_raw(size)
    return -np.log(-np.log(((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52))


def plain_truncate(scores: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    if min_p > 0:
        scores = np.where(scores < scores.max() + np.log(min_p), FORBIDDEN, scores)
    if 0 < top_k < scores.size:
        scores = np.where(scores < np.sort(scores)[-top_k], FORBIDDEN, scores)
    if top_p < 1:
        candidates = np.flatnonzero(scores > FORBIDDEN)
        order = candidates[np.argsort(-scores[candidates], kind="stable")]
        weights = np.exp(scores[order] - scores.max())
        before = np.concatenate(([0.0], np.cumsum(weights / weights.sum())[:-1]))
        dropped = np.ones(scores.size, bool)
        dropped[order[before < top_p]] = False
        scores = np.where(dropped, FORBIDDEN, scores)
    return scores


def difference_of_the_best_two(sums: np.ndarray) -> float:
    second, best = np.sort(sums)[-2:]
    return float(best) - float(second)


def plain_top(sums: np.ndarray, count: int) -> list[int]:
    return sorted(range(sums.size), key=lambda i: (-sums[i], i))[:count]


def normal(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    return rng.normal(scale=scale, size=size)


# Logits (V,) by shape: what language models have, and what they should not have.
SHAPES = {
    "normal": lambda rng, size: normal(rng, size, 3),
    "nearly flat": lambda rng, size: normal(rng, size, 1e-6),
    "flat": lambda rng, size: np.zeros(size),
    "heavy ties": lambda rng, size: np.round(normal(rng, size, 2)),
    "one far above": lambda rng, size: normal(rng, size, 1) + 60 * (np.arange(size) == size // 3),
    "spread wide": lambda rng, size: normal(rng, size, 1e4),
    "far from zero": lambda rng, size: normal(rng, size, 1) + 2e7,
    "mostly forbidden": lambda rng, size: np.where(rng.permutation(size) % 10, FORBIDDEN, normal(rng, size, 2)),
    "three allowed": lambda rng, size: np.where(np.arange(size) % (size // 3 + 1) == 0, rng.random(size), FORBIDDEN),
    "the ends of float32": lambda rng, size: rng.choice([-3.4e38, -1e30, 0.0, 1e-30, 3.3e38, 3.4e38], size),
    "masked by the least float": lambda rng, size: np.where(rng.random(size) < 0.5, -3.4028235e38, rng.random(size)),
    "against the noise": lambda rng, size: -plain_noise(3, 1, 2, size) + normal(rng, size, 1e-7),
}
shapes = st.builds(
    lambda name, size, seed: SHAPES[name](np.random.default_rng(seed), size).astype(np.float32),
    st.sampled_from([*SHAPES]),
    st.sampled_from([3, 51, 52, 53, 157, 1009, 4099]),
    st.integers(0, 2**32),
)
temperatures = st.sampled_from([1e-5, 0.003, 0.3, 0.8, 1.0, 1.7, 1e4])


@settings(deadline=None, max_examples=400)
@given(
    logits=shapes,
    temperature=temperatures,
    top_k=st.sampled_from([0, 1, 7]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-9]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_the_token_is_that_of_the_plain_formula(logits, temperature, top_k, top_p, min_p) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    law = Sampler(params, SamplerContext(logits.size), [0, 1], seed=3, sample=1)
    scores = plain_truncate(logits.astype(np.float64) / temperature, top_k, top_p, min_p)
    np.testing.assert_array_equal(law.process(logits), scores)
    choice, sums = law.sample(logits), scores + plain_noise(3, 1, 2, logits.size)
    assert choice.token == sums.argmax()
    assert choice.margin == difference_of_the_best_two(sums)
    assert choice.logit == logits[choice.token]


@settings(deadline=None, max_examples=200)
@given(logits=shapes)
def test_the_greedy_token_and_its_margin_are_those_of_the_plain_formula(logits) -> None:
    choice = Sampler(SamplingParams(), SamplerContext(logits.size), [0, 1], seed=3).sample(logits)
    assert choice.token == logits.argmax()
    assert choice.margin == difference_of_the_best_two(logits.astype(np.float64))


def test_the_margin_where_only_one_token_is_allowed_is_infinite() -> None:
    logits = np.full(157, FORBIDDEN, np.float32)
    logits[90] = 2.0
    for temperature in (0.0, 1.0):
        law = Sampler(SamplingParams(temperature=temperature), SamplerContext(157), [0, 1], seed=3)
        assert law.sample(logits).margin == np.inf
    assert Sampler(SamplingParams(), SamplerContext(1), [0], seed=3).sample(np.zeros(1, np.float32)).margin == np.inf


@settings(deadline=None, max_examples=200)
@given(logits=shapes, temperature=temperatures, count=st.sampled_from([1, 2, 8, 60]), seed=st.integers(0, 2**64 - 1))
def test_the_best_are_those_of_the_plain_sum_to_the_bit(logits, temperature, count, seed) -> None:
    scores = logits.astype(np.float64) / temperature
    ids, sums = Noise(seed, 0, scores.size).best(scores, 11, count)
    expected = scores + plain_noise(seed, 0, 11, scores.size)
    assert ids.tolist() == plain_top(expected, count)
    np.testing.assert_array_equal(sums, expected[ids])


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("power", [50, 52, 54, 56])
def test_scores_in_which_noise_is_rounded_away_are_compared_as_rounded(power: int, count: int) -> None:
    for seed in range(60):
        scores = np.random.default_rng(seed).integers(-6, 1, 157) * 2.0 ** (power - 52) + 2.0**power
        ids, _ = Noise(seed, 0, 157).best(scores, 2, count)
        assert ids.tolist() == plain_top(scores + plain_noise(seed, 0, 2, 157), count)


@pytest.mark.parametrize("depth", [1e3, 3e7, 1e8, 1e9])
def test_the_best_below_a_gap_that_float32_resolves_poorly_are_right_too(depth: float) -> None:
    for seed in range(60):
        scores = np.random.default_rng(seed).normal(scale=depth * 1e-7, size=157) - depth
        scores[:3] = 0.0
        ids, _ = Noise(seed, 0, 157).best(scores, 2, 8)
        assert ids.tolist() == plain_top(scores + plain_noise(seed, 0, 2, 157), 8)


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_the_first_of_what_is_no_number_wins_as_in_the_plain_sum(logit: float) -> None:
    scores = np.zeros(157)
    scores[[90, 70]] = logit
    assert Noise(0, 0, 157).best(scores, 4)[0] == [70]


def test_noise_asked_for_in_parts_alone_or_whole_is_the_same() -> None:
    whole = plain_noise(9, 2, 5, 1009)
    np.testing.assert_array_equal(Noise(9, 2, 1009).at(5), whole)
    ids = np.array([0, 3, 4, 700, 1008])
    assert ids.size <= noise_module._FEW
    np.testing.assert_array_equal(Noise(9, 2, 1009)._of(5, ids), whole[ids])
    many = np.arange(0, 1009, 3)
    np.testing.assert_array_equal(Noise(9, 2, 1009)._of(5, many), whole[many])


EXTREMES = [0, 1, 2**12, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 2**33, 2**64 - 2**32 - 1, 2**64 - 2**32, 2**64 - 1]
extreme_bits = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(lambda end, step: (end + step) % 2**64, st.sampled_from(EXTREMES), st.integers(-9000, 9000)),
    st.builds(lambda power, step: (2**64 - 2**power + step) % 2**64, st.integers(0, 63), st.integers(-5000, 5000)),
)


@settings(max_examples=300)
@given(st.lists(extreme_bits, min_size=1, max_size=60))
def test_the_ceiling_is_above_the_noise_and_close_where_the_noise_is_high(values: list[int]) -> None:
    bits = np.array(values, np.uint64)
    slack = noise_ceiling(bits) - exact_noise(bits)
    assert (slack > 9e-4).all()
    is_resolved = (bits >> np.uint64(32)) < 2**32 - 256  # enough of the complement's upper bits
    assert (slack[is_resolved & (exact_noise(bits) > 3)] < 0.1).all()


def test_the_ceiling_is_above_the_noise_over_a_million_draws() -> None:
    bits = np.random.Philox(5).random_raw(1_000_003)
    slack = noise_ceiling(bits) - exact_noise(bits)
    assert 9e-4 < slack.min() < 2e-3
    assert slack.max() < 3.7


@settings(deadline=None, max_examples=200)
@given(shapes, st.sampled_from([1, 3, 100]))
def test_the_largest_are_those_of_a_stable_sort(values: np.ndarray, count: int) -> None:
    assert largest(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


@pytest.mark.parametrize("size", [100, 1000, 60_000])
@pytest.mark.parametrize("top_p", [0.1, 0.3, 0.7, 0.9])
def test_top_p_that_equal_probabilities_reach_exactly_is_decided_as_the_plain_sums_do(size: int, top_p: float) -> None:
    scores = np.zeros(size)
    np.testing.assert_array_equal(truncate(scores, 0, top_p, 0.0), plain_truncate(scores, 0, top_p, 0.0))


def test_a_nucleus_far_from_zero_is_not_cut_by_the_rounding_of_its_bound() -> None:
    scores = np.random.default_rng(2).integers(-20, 0, 999) * 2.0 + 2.0**53
    np.testing.assert_array_equal(truncate(scores, 0, 0.9999, 0.0), plain_truncate(scores, 0, 0.9999, 0.0))


def penalised(params: SamplingParams, scores: np.ndarray, prompt: list[int], generated: list[int]) -> np.ndarray:
    counts = np.bincount(generated, minlength=scores.size)
    for token, value in params.logit_bias.items():
        scores[token] += value
    seen = np.isin(np.arange(scores.size), prompt + generated)
    factor = params.repetition_penalty
    scores = np.where(seen, np.where(scores > 0, scores / factor, scores * factor), scores)
    return scores - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)


@settings(deadline=None)
@given(logits=shapes, generated=st.lists(st.integers(0, 2), max_size=9), temperature=st.sampled_from([0.0, 1.0]))
def test_penalties_on_the_seen_tokens_are_those_on_all(logits, generated, temperature) -> None:
    params = SamplingParams(
        temperature=temperature,
        repetition_penalty=1.3,
        frequency_penalty=0.7,
        presence_penalty=-0.2,
        logit_bias={1: 2.5, 2: FORBIDDEN},
    )
    law = Sampler(params, SamplerContext(logits.size), [0, 0], seed=1)
    before = logits.copy()
    for token in generated:
        law.advance(token)
    expected = penalised(params, logits.astype(np.float64), [0, 0], generated)
    np.testing.assert_array_equal(law.process(logits), expected)
    np.testing.assert_array_equal(logits, before)


@settings(deadline=None, max_examples=200)
@given(logits=shapes)
def test_what_is_reported_is_the_softmax_in_float64(logits) -> None:
    choice = Sampler(SamplingParams(logprobs=4), SamplerContext(logits.size), [0], seed=0).sample(logits)
    shifted = logits.astype(np.float64) - logits.max()
    weights = np.exp(shifted)
    logprobs = shifted - np.log(weights.sum())
    entropy = -np.dot(weights / weights.sum(), np.where(weights > 0, logprobs, 0.0))
    assert choice.token == logits.argmax()
    assert choice.logprob == pytest.approx(logprobs[choice.token], abs=1e-12)
    assert choice.entropy == pytest.approx(entropy, abs=1e-11)
    assert [t for t, _ in choice.top] == np.argsort(-logits, kind="stable")[:4].tolist()
    assert [p for _, p in choice.top] == pytest.approx(logprobs[[t for t, _ in choice.top]], abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.5, "top_p": 0.9, "min_p": 0.1}])
def test_a_large_vocabulary_that_is_forbidden_whole_is_refused(options: dict) -> None:
    law = Sampler(SamplingParams(**options), SamplerContext(157), [0], seed=0)
    with pytest.raises(RequestError, match="every token is forbidden at position 1"):
        law.sample(np.full(157, FORBIDDEN, np.float32))


def test_greedy_draws_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "_generator", None)
    law = Sampler(SamplingParams(repetition_penalty=1.2), SamplerContext(157), [0], seed=0)
    assert law.sample(np.arange(157, dtype=np.float32)).token == 156
