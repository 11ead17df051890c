"""`decide` over a model: its probabilities are those of scores, its rule is a calibration's, its seam lm-eval's."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import paceline
from paceline.deciding.calibration import Calibration
from paceline.errors import ConfigError, RequestError
from paceline.text.seam import cut_at_seam
from paceline.text.tokenizer import Tokenizer

PROMPT = "Lily went to the"
CHOICES = ["park", "park with her mom", "beach"]
pieces = st.lists(
    st.sampled_from(["Once", " upon", "a", "\n", " ", "  ", "é", "Ġ", "time.", "", "123"]), max_size=5
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(bundled: paceline.LLM) -> Tokenizer:
    assert bundled.tokenizer is not None
    return bundled.tokenizer


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """`TemplateLM._encode_pair` of lm-evaluation-harness 0.4.13, for causal models, word for word."""
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole_enc = tokenizer.inner.encode(context + continuation)
    context_enc = tokenizer.inner.encode(context)
    return context_enc, whole_enc[len(context_enc) :]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces, pieces)
def test_the_seam_is_lm_evals(tokenizer: Tokenizer, prompt: str, continuation: str) -> None:
    if not prompt.strip():
        expected = [tokenizer.inner.bos_token_id], tokenizer.inner.encode(prompt + continuation)
    else:
        expected = encode_pair(tokenizer, prompt, continuation)
    if expected[1]:
        assert cut_at_seam(tokenizer, prompt, continuation) == expected
    else:
        with pytest.raises(RequestError, match="no token of its own"):
            cut_at_seam(tokenizer, prompt, continuation)


def test_token_ids_are_taken_as_they_are(tokenizer: Tokenizer) -> None:
    assert cut_at_seam(tokenizer, [5, 6], "time ") == ([5, 6], tokenizer.inner.encode("time "))
    assert cut_at_seam(tokenizer, "Once ", [7]) == (tokenizer.inner.encode("Once "), [7])
    begin = tokenizer.inner.bos_token_id
    assert cut_at_seam(tokenizer, "", [begin, 7]) == ([begin], [7])


def test_a_choice_has_the_probability_of_its_spellings_less_that_of_longer_ones(bundled: paceline.LLM) -> None:
    decision = bundled.decide(PROMPT, CHOICES)
    spelt = [f"{space}{choice}" for choice in CHOICES for space in ("", " ")]
    shares = {text: math.exp(score.logprob) for text, score in zip(spelt, bundled.score(PROMPT, spelt), strict=True)}
    longer, expected = shares["park with her mom"] + shares[" park with her mom"], Counter[str]()
    for text, share in shares.items():
        expected[text.strip()] += share
    expected["park"] -= longer
    assert {name: math.exp(value) for name, value in decision.logprobs.items()} == pytest.approx(expected)
    assert decision.mass == pytest.approx(sum(expected.values()))
    assert decision.probabilities == pytest.approx({name: e / sum(expected.values()) for name, e in expected.items()})
    assert decision.choice == decision.best == max(expected, key=lambda name: expected[name])


def test_an_end_has_to_follow(bundled: paceline.LLM, tokenizer: Tokenizer) -> None:
    """By brute force: each token that begins with the end, scored behind each spelling."""
    ends = [
        i for i in range(len(tokenizer.inner)) if tokenizer.decode([40, i])[len(tokenizer.decode([40])) :][:1] == ","
    ]
    assert len(ends) > 1
    ends.append(tokenizer.inner.eos_token_id)
    decision = bundled.decide(PROMPT, [["park", " park"], [" beach"]], end=",")
    prompt = tokenizer.encode(PROMPT)
    for name, spellings in (("park", ["park", " park"]), ("beach", [" beach"])):
        paths = [(*cut_at_seam(tokenizer, PROMPT, text)[1], end) for text in spellings for end in ends]
        total = sum(math.exp(score.logprob) for score in bundled.score(prompt, paths))
        assert math.exp(decision.logprobs[name]) == pytest.approx(total, rel=1e-9)
    with pytest.raises(RequestError, match="no token begins with"):
        bundled.decide(PROMPT, CHOICES, end="qqqqqq")


def test_it_abstains_below_its_threshold_and_says_why(bundled: paceline.LLM) -> None:
    sure = bundled.decide(PROMPT, CHOICES).probability
    [below] = bundled.decide([PROMPT], CHOICES, abstain=min(sure + 1e-6, 1.0))
    assert below.choice is None
    assert below.reason.startswith(f"{below.best!r} has {100 * sure:.1f} %, which is below the threshold")
    assert str(below).startswith("abstains: ")
    assert asyncio.run(bundled.adecide(PROMPT, CHOICES, abstain=sure)).choice == below.best
    html = bundled.decide(PROMPT, ["<b>park</b>", "beach"])._repr_html_()
    assert "<b>park" not in html
    assert "&lt;b&gt;park" in html


def test_a_calibration_brings_its_temperature_and_threshold(bundled: paceline.LLM) -> None:
    plain = bundled.decide(PROMPT, CHOICES)
    known = Calibration("m", bundled.model_fingerprint, 3.0, 0.99, 0.02, 0.95, 10, 200, 150, 0, tuple(CHOICES))
    cooler = bundled.decide(PROMPT, CHOICES, calibration=known)
    assert cooler.choice is None
    assert "at most 2 % is wrong, with a confidence of 95 %" in cooler.reason
    weights = {name: value ** (1 / 3) for name, value in plain.probabilities.items()}
    assert cooler.probabilities == pytest.approx({name: w / sum(weights.values()) for name, w in weights.items()})
    for wrong, message in (
        ({"calibration": replace(known, fingerprint="0" * 16)}, "not for this model"),
        ({"calibration": replace(known, choices=("a", "b"))}, "allowed by the calibration: a, b"),
        ({"calibration": known, "abstain": 0.5}, "given together"),
        ({"calibration": known, "end": ["."]}, "allowed by the calibration: None"),
        ({"calibration": 3}, "paceline calibrate"),
        ({"abstain": 1.5}, r"abstain is 1.5; allowed: a number in \[0, 1\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            bundled.decide(PROMPT, CHOICES, **wrong)
