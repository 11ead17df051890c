"""The noise: standard Gumbel, independent from place to place, and the same in every release.

Each statistical test fails with probability 1e-6 if the noise is right; the seeds are fixed.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from law.support import Kind, decode
from paceline.sampling.noise import Noise, open_uniforms
from paceline.testing import ScriptedTarget

FALSE_ALARM = 1e-6


def uniforms(seed: int, sample: int, positions: range, vocab_size: int) -> np.ndarray:
    """The noise as uniforms, (positions, V)."""
    noise = Noise(seed, sample, vocab_size)
    return np.exp(-np.exp(-np.stack([noise.at(position) for position in positions])))


def test_uniforms_from_extreme_bits_are_neither_0_nor_1() -> None:
    ends = open_uniforms(np.array([0, 2**64 - 1], np.uint64))
    assert 0 < ends[0] < 2e-16
    assert 1 - 2e-16 < ends[1] < 1
    assert np.isfinite(-np.log(-np.log(ends))).all()


def test_noise_is_standard_gumbel() -> None:
    noise = Noise(3, 0, 997)
    drawn = np.concatenate([noise.at(position) for position in range(101)])
    assert stats.kstest(drawn, "gumbel_r").pvalue > FALSE_ALARM


@pytest.mark.parametrize("height", [4.0, 8.0, 11.0])
def test_the_upper_tail_is_as_heavy_as_it_should_be(height: float) -> None:
    noise = Noise(8, 0, 50_021)
    count = sum(int((noise.at(position) > height).sum()) for position in range(40))
    chance = -np.expm1(-np.exp(-height))
    assert stats.binomtest(count, 40 * 50_021, chance).pvalue > FALSE_ALARM


def test_no_two_of_a_million_draws_are_equal() -> None:
    """False alarm: 1e12 / 2 pairs over 2**52 values, about 1e-4, were the seed not fixed."""
    drawn = Noise(5, 1, 1_000_003).at(17)
    assert len(np.unique(drawn)) == len(drawn)


NEIGHBOURS = {
    "position": ((6, 0, 1), (6, 0, 0)),
    "sample": ((6, 1, 0), (6, 0, 0)),
    "seed": ((7, 0, 0), (6, 0, 0)),
    "sample and seed exchanged": ((6, 7, 0), (7, 6, 0)),
    "far position": ((6, 0, 2**32), (6, 0, 0)),
    "seed beyond 32 bits": ((6 + 2**32, 0, 0), (6, 0, 0)),
    "token": ((6, 0, 0), None),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_noise_is_independent_of_its_neighbour_in(name: str) -> None:
    (seed, sample, first), other = NEIGHBOURS[name]
    here = uniforms(seed, sample, range(first, first + 40), 1001)
    if other is None:
        here, there = here[:, 1:], here[:, :-1]
    else:
        there = uniforms(other[0], other[1], range(other[2], other[2] + 40), 1001)
    table = np.histogram2d(here.ravel(), there.ravel(), bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > FALSE_ALARM


def test_noise_does_not_depend_on_who_asks_when_or_how_often() -> None:
    one, other = Noise(1, 2, 13), Noise(1, 2, 13)
    forward = [one.at(position) for position in range(9)]
    backward = [other.at(position) for position in reversed(range(9))][::-1]
    np.testing.assert_array_equal(forward, backward)
    one.forget(8)
    np.testing.assert_array_equal([one.at(position) for position in range(9)], forward)


def test_committed_places_are_forgotten_and_drafted_ones_kept() -> None:
    noise = Noise(1, 2, 13)
    drafted = [noise.at(position) for position in range(3, 8)]
    noise.forget(5)
    assert noise.at(7) is drafted[4]
    assert noise.at(6) is drafted[3]
    assert noise.at(5) is not drafted[2]


def test_a_negative_seed_is_allowed_and_differs_from_its_opposite() -> None:
    assert not np.array_equal(Noise(-3, 0, 9).at(0), Noise(3, 0, 9).at(0))


GOLDEN = {
    (0, 0, 0): [
        -1.49545161157695,
        -0.3511371183614868,
        -0.7859067841514997,
        0.5586754626449686,
        0.3733862877981871,
    ],
    (0, 0, 1): [
        -0.4394360086828338,
        -0.4282578804306737,
        1.2735127182046522,
        0.46475426029220757,
        1.4171651651406563,
    ],
    (0, 1, 0): [
        1.5770251048157307,
        1.2520837542785714,
        0.9212547038077892,
        0.3181660624503499,
        1.051879645124189,
    ],
    (1, 0, 0): [
        -0.17575800360186283,
        1.8076498398198788,
        -0.6189814975417195,
        -1.2442527174409201,
        2.253201972288481,
    ],
    (-(2**63), 1023, 131_071): [
        -0.5006634372243884,
        -0.8812739765397414,
        -0.2859933072307886,
        -0.8180867151560707,
        2.0561651708369526,
    ],
    (2**64 - 1, 3, 77): [
        0.4382638566258695,
        -0.43059572289613446,
        0.09905041184703403,
        -0.7388087773702556,
        0.19948366324562206,
    ],
}


@pytest.mark.parametrize("place", GOLDEN, ids=str)
def test_noise_is_that_of_every_release(place: tuple[int, int, int]) -> None:
    seed, sample, position = place
    np.testing.assert_allclose(Noise(seed, sample, 5).at(position), GOLDEN[place], rtol=1e-13)


def test_noise_of_a_token_does_not_depend_on_the_size_of_the_vocabulary() -> None:
    for position, size in product((0, 5), (3, 8, 101)):
        np.testing.assert_array_equal(Noise(4, 0, size).at(position), Noise(4, 0, 211).at(position)[:size])


def test_sampled_outputs_are_those_of_every_release() -> None:
    target = ScriptedTarget(lambda history: [(31 * sum(history) + 7 * v * v) % 23 / 8 for v in range(29)], 29)
    kind = Kind({"temperature": 0.9, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1})
    outputs = decode(target, [kind.request(29, 12, seed=2026, sample=i) for i in range(2)])
    assert outputs == [
        (13, 19, 27, 12, 15, 14, 18, 10, 6, 7, 10, 3),
        (13, 11, 25, 24, 16, 13, 14, 25, 8, 1, 21, 23),
    ]
