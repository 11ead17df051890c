"""A temperature and a threshold from labelled examples, such that a promise about what is answered holds.

The promise is about the error *among what is answered*, a ratio whose denominator moves with the threshold. Conformal
risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, arXiv 2208.02814) bounds the expectation of a loss that
never rises with the threshold, such as "answered and wrong"; this ratio is none, and an expectation over calibrations
says nothing of the one at hand. So its sibling is taken, Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei
2021, arXiv 2110.01052), of which selective classification is an instance:

1. The examples are split at random. From the smaller part come the temperature (Guo et al. 2017, arXiv 1706.04599), the
   thresholds that are candidates, and their order, the most promising first. All of these are then fixed.
2. For each candidate the hypothesis is that the error among what it answers is above `error`. Of the other part n are
   answered and k of them wrong. Given n, k is binomial with that error: so the probability of k or fewer at `error`
   itself is a p-value, at every n (it is the test that Clopper and Pearson's bound inverts).
3. The candidates are tested in their order, each at 1 - confidence, up to the first that is not rejected. A false
   rejection means that the first true hypothesis in that fixed order was rejected; its chance is at most
   1 - confidence. Of those rejected the lowest threshold is taken, which answers most.

So with probability `confidence` over the draw of the examples, the error among what is answered is at most `error`, for
prompts drawn as the examples were. Nothing is assumed of the model, and nothing is promised of prompts of another kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from paceline.deciding.binomial import at_most, most_errors
from paceline.deciding.choices import likeliest, tempered
from paceline.errors import ConfigError

_FITTED = 0.1  # of the examples
_BELIEF = 3  # examples
_RANGE = math.log(20.0)  # of temperatures, to both sides of 1
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_SEARCH_STEPS = 40


@dataclass(frozen=True)
class Example:
    """What the model thought of the choices of a prompt, in nats, and which is right."""

    logprobs: Mapping[str, float]
    label: str


@dataclass(frozen=True)
class Learnt:
    """A threshold that passed, and what the test saw at it. See `Calibration`."""

    temperature: float
    threshold: float
    num_fitted: int
    num_tested: int
    num_answered: int
    num_wrong: int


def learn(examples: Sequence[Example], error: float, confidence: float, seed: int = 0) -> Learnt:
    """The temperature, and the lowest threshold of which the promise is proved.

    Raises:
        ConfigError: there is none: too few examples, or too many errors.
    """
    shuffled = list(examples)
    Random(seed).shuffle(shuffled)
    num_fitted = int(_FITTED * len(shuffled))
    fitted, tested = shuffled[:num_fitted], shuffled[num_fitted:]
    temperature = fit_temperature(fitted)
    known, fresh = (_judged(part, temperature) for part in (fitted, tested))
    passed = []
    for threshold in _candidates(known, len(tested), error, confidence):
        answered, wrong = _counts(fresh, threshold)
        if wrong > most_errors(answered, error, confidence):
            break
        passed.append(threshold)
    if not passed:
        raise ConfigError(_no_threshold(fresh, error, confidence))
    threshold = min(passed)
    answered, wrong = _counts(fresh, threshold)
    return Learnt(temperature, threshold, num_fitted, len(tested), answered, wrong)


def fit_temperature(examples: Sequence[Example]) -> float:
    """The temperature of the least cross-entropy. A normal prior on its logarithm: a few examples move it little."""

    def loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        chances = [tempered(example.logprobs, temperature)[example.label] for example in examples]
        return 0.5 * log_temperature**2 - sum(math.log(max(chance, 1e-300)) for chance in chances)

    low, high = -_RANGE, _RANGE
    for _ in range(_SEARCH_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


Judged = list[tuple[float, bool]]  # of each example the likeliest choice's probability, and whether it is wrong


def _judged(examples: Sequence[Example], temperature: float) -> Judged:
    judged = []
    for example in examples:
        chances = tempered(example.logprobs, temperature)
        best = likeliest(chances)
        judged.append((chances[best], best != example.label))
    return judged


def _counts(judged: Judged, threshold: float) -> tuple[int, int]:
    """How many are answered at a threshold, and how many of these are wrong."""
    answered = [is_wrong for chance, is_wrong in judged if chance >= threshold]
    return len(answered), sum(answered)


def _candidates(known: Judged, num_tested: int, error: float, confidence: float) -> list[float]:
    """Thresholds in the order in which they are tested: those first that should pass most surely.

    How many of so few examples are wrong says little. So what was believed of them, at the fitted temperature, counts
    as much as `_BELIEF` further examples.
    """
    ranked = sorted(known, reverse=True)
    chances = [chance for chance, _ in ranked]

    def chance_to_fail(num_answered: int) -> float:
        believed = 1.0 - sum(chances[:num_answered]) / num_answered
        wrong = sum(is_wrong for _, is_wrong in ranked[:num_answered])
        rate = (wrong + _BELIEF * believed) / (num_answered + _BELIEF)
        count = num_tested * num_answered // len(chances)
        return 1.0 - at_most(most_errors(count, error, confidence), count, rate)

    places = sorted(range(1, len(chances) + 1), key=lambda place: (chance_to_fail(place), -place))
    return list(dict.fromkeys(chances[place - 1] for place in places))


def _no_threshold(fresh: Judged, error: float, confidence: float) -> str:
    least = math.ceil(math.log(1.0 - confidence) / math.log1p(-error))
    wrong = sum(is_wrong for _, is_wrong in fresh)
    return (
        f"no threshold promises an error of {100 * error:g} % with a confidence of {100 * confidence:g} %: "
        f"{len(fresh)} examples are left to test it with, {wrong} of them wrong when all are answered, and {least} "
        "answers without an error are needed at least; allowed: more examples, or a higher error"
    )
