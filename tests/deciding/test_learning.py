"""The promise holds where the truth is known, and a rule that tests nothing breaks it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binom

from paceline.deciding.binomial import at_most, most_errors, upper_bound
from paceline.deciding.calibration import Calibration, as_calibration
from paceline.deciding.choices import tempered
from paceline.deciding.labelled import Decided, read_decided, read_labelled, write_decided
from paceline.deciding.learning import Example, fit_temperature, learn
from paceline.errors import ConfigError

CONFIDENCE, ERROR = 0.8, 0.15


@pytest.mark.parametrize(("errors", "count"), [(0, 1), (0, 149), (3, 7), (12, 400), (7, 7), (40, 5000)])
def test_bounds_are_those_of_scipy(errors: int, count: int) -> None:
    for rate in (0.001, 0.02, 0.5, 0.97):
        assert at_most(errors, count, rate) == pytest.approx(binom.cdf(errors, count, rate), rel=1e-9, abs=1e-300)
    expected = 1.0 if errors == count else beta.ppf(0.95, errors + 1, count - errors)
    assert upper_bound(errors, count, 0.95) == pytest.approx(expected, rel=1e-9)


def test_the_most_errors_are_those_that_a_test_lets_pass() -> None:
    assert most_errors(148, 0.02, 0.95) == -1
    assert most_errors(149, 0.02, 0.95) == 0
    assert most_errors(0, 0.5, 0.5) == -1
    assert (
        binom.cdf(most_errors(400, 0.05, 0.9), 400, 0.05) <= 0.1 < binom.cdf(most_errors(400, 0.05, 0.9) + 1, 400, 0.05)
    )


def drawn(rng: np.random.Generator, count: int) -> list[Example]:
    """Two choices: the likelier has a chance from 0.5 to 1, and is right somewhat less often than that."""
    examples = []
    for chance in 0.5 + 0.5 * rng.random(count):
        is_right = rng.random() < truth(chance)
        logprobs = {"a": math.log(chance), "b": math.log(max(1.0 - chance, 1e-12))}
        examples.append(Example(logprobs, "a" if is_right else "b"))
    return examples


def truth(chance: float | np.ndarray) -> float | np.ndarray:
    """How often a choice of this chance is right; its mean over an interval is that at its middle."""
    return 0.55 + 0.45 * (2 * chance - 1)


def error_at(threshold: float, temperature: float) -> float:
    """The true error among what is answered, of all prompts."""
    odds = (threshold / (1.0 - threshold)) ** temperature
    chance = max(odds / (1.0 + odds), 0.5)
    return float(1.0 - truth((chance + 1.0) / 2))


def test_the_promise_holds_as_often_as_it_says() -> None:
    rng, broken, learnt = np.random.default_rng(1), 0, 0
    for seed in range(100):
        try:
            found = learn(drawn(rng, 200), ERROR, CONFIDENCE, seed)
        except ConfigError:
            continue
        learnt += 1
        broken += error_at(found.threshold, found.temperature) > ERROR
    assert learnt > 40
    assert broken <= binom.ppf(0.999, 100, 1.0 - CONFIDENCE)


def test_a_rule_that_tests_nothing_breaks_the_promise() -> None:
    """The planted fault: the lowest threshold whose errors are few enough among the examples themselves."""
    rng, broken = np.random.default_rng(1), 0
    for _ in range(100):
        judged = sorted(((tempered(e.logprobs, 1.0)["a"], e.label != "a") for e in drawn(rng, 150)), reverse=True)
        rates = np.cumsum([wrong for _, wrong in judged]) / np.arange(1, 151)
        kept = np.flatnonzero(rates <= ERROR)
        broken += bool(len(kept)) and error_at(judged[kept[-1]][0], 1.0) > ERROR
    assert broken > binom.ppf(0.999, 100, 1.0 - CONFIDENCE)


def test_the_temperature_undoes_one_that_was_planted() -> None:
    rng = np.random.default_rng(3)
    examples = []
    for _ in range(400):
        logits = rng.normal(size=4) * 2
        chances = np.exp(logits) / np.exp(logits).sum()
        label = str(rng.choice(4, p=chances))
        examples.append(Example({str(i): float(3 * value) for i, value in enumerate(np.log(chances))}, label))
    assert fit_temperature(examples) == pytest.approx(3.0, rel=0.15)
    sure = [Example({"a": 0.0, "b": -9.0}, "a")] * 20
    assert 0.2 < fit_temperature(sure) < 1.0  # a few examples without an error say little
    assert fit_temperature([]) == pytest.approx(1.0, abs=1e-3)


def test_too_few_examples_are_said_to_be_too_few() -> None:
    examples = drawn(np.random.default_rng(0), 40)
    with pytest.raises(ConfigError, match=r"no threshold promises an error of 2 % .* 149 answers without an error"):
        learn(examples, 0.02, 0.95)
    with pytest.raises(ConfigError, match="no threshold"):
        learn(examples[:1], 0.02, 0.95)


KNOWN = Calibration("m", "f" * 16, 0.9, 0.8, 0.02, 0.95, 10, 200, 150, 0, ("a", "b"), None)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    KNOWN.write(tmp_path / "c.json")
    assert as_calibration(tmp_path / "c.json") == as_calibration(str(tmp_path / "c.json")) == KNOWN
    assert "at most 2 % is wrong" in KNOWN.promise
    assert "150 of 200 examples (75.0 %)" in KNOWN.evidence
    KNOWN.check("f" * 16, ["b", "a"])
    with pytest.raises(ConfigError, match="learnt for m"):
        KNOWN.check("0" * 16, ["a", "b"])
    with pytest.raises(ConfigError, match="allowed by the calibration: a, b"):
        KNOWN.check("f" * 16, ["a", "c"])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', "{"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigError, match="paceline calibrate"):
        as_calibration(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="paceline calibrate"):
        as_calibration(3)


def test_examples_and_decisions_are_files_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "p", "choices": [" yes", ["no", "nope"]], "label": "yes"}\n')
    [line] = read_labelled(path)
    assert (line.names, line.label) == (("yes", "no"), "yes")
    decided = [Decided("p", {"yes": 0.7, "no": 0.3}, "no", 0.5)]
    write_decided(path, decided)
    assert read_decided(path) == decided
    assert decided[0].is_answered
    assert decided[0].is_wrong
    for bad in (
        '{"prompt": "p", "choices": ["a", "b"], "label": "c"}',
        '{"prompt": 1, "choices": ["a", "b"], "label": "a"}',
        '{"prompt": "p", "choices": ["a"], "label": "a"}',
        '{"prompt": "p", "choices": ["a", "b"], "label": "a", "more": 1}',
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError, match="cannot read labelled examples"):
            read_labelled(path)
    for bad in ('{"prompt": "p", "probabilities": {"a": 2, "b": 0}, "label": "a"}', '{"prompt": "p"}'):
        path.write_text(bad)
        with pytest.raises(ConfigError, match="cannot read decisions"):
            read_decided(path)
