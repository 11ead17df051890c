"""Bets against right probabilities do not pay; against wrong ones they do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paceline.certify.betting import FALSE_ALARM, Bettor, Chances
from paceline.wealth import log_mean_exp, p_value

FAIR = np.array([0.45, 0.25, 0.15, 0.1, 0.05, 0.0])


def wealth(drawn_with: np.ndarray, seed: int = 0, count: int = 1500, believed: np.ndarray = FAIR) -> list[float]:
    """The logarithm of wealth after each of `count` tokens."""
    bettor, chances, found = Bettor(), Chances(believed), []
    for token in np.random.default_rng(seed).choice(believed.size, count, p=drawn_with / drawn_with.sum()):
        bettor.bet("here", chances, int(token))
        found.append(bettor.log_wealth)
    return found


def test_fair_tokens_make_nobody_rich():
    """Ville: the chance that wealth ever exceeds 1 / a is at most a; 200 runs, a = 1/20: 10 expected at most.

    More than 22 of them happen with probability below 2e-4.
    """
    rich = sum(max(wealth(FAIR, seed, 200)) > math.log(20) for seed in range(200))
    assert rich <= 22
    assert all(p_value(max(wealth(FAIR, seed))) > FALSE_ALARM for seed in range(20))


@pytest.mark.parametrize(
    "drawn_with",
    [FAIR**1.5, FAIR**0.6, 0.8 * FAIR + 0.2 * np.eye(6)[0], FAIR[[1, 0, 2, 3, 4, 5]], FAIR * [1, 1, 1, 1, 0, 1]],
    ids=["too cold", "too hot", "sometimes the likeliest", "two exchanged", "one left out"],
)
def test_tokens_drawn_with_other_probabilities_are_found_out(drawn_with: np.ndarray):
    assert p_value(wealth(drawn_with)[-1]) < FALSE_ALARM


def test_a_token_that_cannot_be_drawn_refutes_at_once():
    bettor = Bettor()
    bettor.bet("here", Chances(FAIR), 5)
    assert p_value(bettor.log_wealth) == 0.0


def test_each_strategys_odds_are_a_distributions():
    chances = Chances(FAIR)
    total = sum(FAIR[token] * chances.odds(token) for token in range(5))
    np.testing.assert_allclose(total, 1.0)


def test_which_of_two_equal_tokens_a_truncation_keeps_does_not_matter():
    kept = np.array([0.6, 0.4, 0.0])
    chances = Chances(kept, edge=(1, 2))
    assert chances.stands_for(2) == 1
    bettor = Bettor()
    for token in (0, 2, 1, 0, 0):
        bettor.bet("here", chances, token)
    assert math.isfinite(bettor.log_wealth)


def test_the_mean_of_wealths_survives_large_numbers():
    assert log_mean_exp(np.array([1000.0, 0.0])) == pytest.approx(1000.0 - math.log(2))
    assert log_mean_exp(np.array([np.inf, 0.0])) == np.inf
    assert p_value(-3.0) == 1.0
