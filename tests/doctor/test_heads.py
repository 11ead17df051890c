"""What a head would bring, and what one that is there does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import paceline
from exactness.models import build
from heads.making import block_head
from paceline.doctor import heads
from paceline.doctor.diagnosis import PROBLEM, missing_head, stale_head
from paceline.doctor.facts import Facts
from paceline.doctor.head_check import HeadFacts, check_head
from paceline.doctor.heads import GREEDY, SAMPLED, Curve, forecast, head_share
from paceline.doctor.prediction import Interval
from paceline.doctor.questions import Question
from paceline.doctor.recording import RecordedOutput, Row
from paceline.heads.formats.speculators_dspark import Verifier, write_head

FACTS = Facts("native", "bfloat16", "cpu", 2, 2, {1: 1.0, 8: 1.3}, 0.0, 100)


def said(sureness: float, length: int = 31, **sampling: Any) -> RecordedOutput:
    """An output of which the target was so sure, token for token."""
    logits = np.log(np.array([sureness, (1 - sureness) / 2, (1 - sureness) / 2]) + 1e-12).astype(np.float32)
    rows = tuple(Row(np.array([5, 6, 7]), logits) for _ in range(length))
    return RecordedOutput(Question("x"), (1, 2, 3), sampling, (5,) * length, rows)


def test_a_target_that_is_sure_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "GREEDY", Curve((0.0,) * 7, 1.0))
    monkeypatch.setattr(heads, "SAMPLED", Curve((-1.0,) * 7, 1.0))
    free = lambda rows, context: 1.0  # noqa: E731
    sure, unsure = (forecast([said(p)] * 3, free, 0.0) for p in (0.9995, 0.4))
    assert sure is not None
    assert unsure is not None
    assert sure.mean_acceptance_length.value == pytest.approx(8.0, abs=0.05)
    assert unsure.mean_acceptance_length.value == pytest.approx(1 + sum(0.4**k for k in range(1, 8)), abs=1e-6)
    assert sure.num_drafts == 7
    warm = forecast([said(0.4, temperature=1.0)] * 3, free, 0.0)
    assert warm is not None
    assert warm.mean_acceptance_length.value < unsure.mean_acceptance_length.value


def test_what_rows_and_drafts_cost_is_paid() -> None:
    dear = lambda rows, context: float(rows)  # noqa: E731
    found = forecast([said(0.6)] * 2, dear, 0.0)
    assert found is not None
    assert found.num_drafts == 1
    assert found.speedup.value < 1.0
    assert forecast([said(0.6, length=6)], dear, 0.1) is None


def test_curves_fall_with_depth_and_rise_with_sureness() -> None:
    for curve in (GREEDY, SAMPLED):
        assert len(curve.slots) == 7
        assert curve.slope > 0
        assert curve.at(np.full((1, 7), 0.9))[0, 0] > curve.at(np.full((1, 7), 0.9))[0, 6]
    assert head_share(256, 4096, 6_900_000) == pytest.approx(0.22, abs=0.03)


def test_a_head_that_brings_less_than_it_did_is_stale(tmp_path: Path) -> None:
    model = build("llama", torch.float32)
    write_head(block_head(model, taps=(1, 2)), tmp_path, Verifier.of(model, "x"), torch.float32)
    recordings = [RecordedOutput(Question("x"), tuple(range(5, 30)), {"max_tokens": 9, "seed": 1}, (5,) * 9, ())] * 2
    with paceline.load(model, drafters="none", head=block_head(model)) as llm:
        found = check_head(llm, recordings)
        assert found is not None
        assert found.promised is None
        assert 1.0 <= found.length <= 8.0
        assert check_head(llm, [replace(recordings[0], question=Question("x", output="y"))]) is None
    for written, promised in (({"tau": 9.5}, 9.5), ({"tau": "much"}, None), ([], None)):
        (tmp_path / "figures.json").write_text(json.dumps(written))
        assert paceline.doctor.head_check._promised(tmp_path) == promised
    [finding] = stale_head(replace(FACTS, head=HeadFacts("block", 2.0, 3.0)))
    assert finding.severity == PROBLEM
    assert "stale" in finding.change
    [finding] = stale_head(replace(FACTS, head=HeadFacts("block", 2.9, 3.0)))
    assert finding.severity != PROBLEM
    assert stale_head(FACTS) == missing_head(FACTS) == []


def test_a_head_that_would_pay_is_advised() -> None:
    forecasts = [heads.HeadForecast(Interval(3.0, 2.8, 3.2), Interval(2.0, 1.9, 2.1), 7), None]
    facts = replace(FACTS, forecast=forecasts[0], speedup=1.2)
    assert "paceline train" in missing_head(facts)[0].change
    assert missing_head(replace(facts, speedup=1.9))[0].change == ""
