"""Measures of tokens: fragility by the dtype's resolution, and the same bits however a token was decoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline.report.measures import alternatives, is_fragile, measured, spacing
from paceline.testing import ScriptedDrafter
from report.support import decoded, saying


@given(st.floats(-1e4, 1e4).filter(lambda x: abs(x) > 1e-3))
def test_spacing_is_that_of_the_dtypes_own_numbers(value: float) -> None:
    half, single = np.float16(value), np.float32(value)
    assert spacing(float(half), "float16") == np.spacing(abs(half))
    assert spacing(float(single), "float32") == np.spacing(abs(single))
    brain = torch.tensor(value, dtype=torch.bfloat16)
    away = torch.nextafter(brain, torch.tensor(float("inf") if value > 0 else float("-inf"), dtype=torch.bfloat16))
    assert spacing(float(brain), "bfloat16") == abs(float(away) - float(brain))


@pytest.mark.parametrize(
    ("margin", "logit", "dtype", "temperature", "fragile"),
    [
        (0.125, 16.2, "bfloat16", 0.0, True),
        (0.126, 16.2, "bfloat16", 0.0, False),
        (0.125, 15.9, "bfloat16", 0.0, False),
        (0.125, -31.0, "bfloat16", 0.0, True),
        (0.125, 16.2, "float16", 0.0, False),
        (0.25, 16.2, "bfloat16", 0.5, True),  # scores are logits over the temperature
        (0.125, 16.2, "bfloat16", 2.0, False),
        (0.0, 0.0, "float32", 0.0, True),
        (float("inf"), 16.2, "bfloat16", 0.0, False),
        (0.1, float("inf"), "bfloat16", 0.0, False),
    ],
)
def test_fragile_is_what_hangs_on_the_dtypes_resolution(margin, logit, dtype, temperature, fragile) -> None:
    assert is_fragile(margin, logit, dtype, temperature) is fragile


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_measures_are_the_same_bits_plain_and_drafted(temperature: float) -> None:
    how = {"max_tokens": 29, "temperature": temperature, "seed": 3, "logprobs": 3}
    plain = decoded(**how)
    drafted = decoded(lambda model: [ScriptedDrafter.adversarial(model, right=2)], **how)
    assert len(drafted.steps) < len(plain.steps)
    for one, other in zip(measured(plain), measured(drafted), strict=True):
        assert one.token.margin == other.token.margin > 0.0
        assert one.token.logit == other.token.logit
        assert one.is_fragile == other.is_fragile


def test_alternatives_are_spelled_behind_what_stands_before_them() -> None:
    output = saying([" one", "", "three"])
    assert [text for text, _ in alternatives(output, 2)] == [" one", "token 1", "three", " one", "token 4"]
    assert alternatives(decoded(max_tokens=2), 0) == []
