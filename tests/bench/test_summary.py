"""Speed-ups, their intervals, the noise and α, of measurements made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from paceline.bench.contenders import DecodeContender, Sweep
from paceline.bench.decode import DecodePlan, DecodePrompt, DecodeRun, DecodeSample
from paceline.bench.decode_report import as_json, categories_table, contenders_table
from paceline.bench.names import GENERATE, PLAIN, PLAIN_AGAIN
from paceline.bench.summary import ContenderSummary, summarise
from paceline.text.prompt_formats import Prompt

FAST = "paceline fast, budget 3"
TOKENS = tuple(range(10))


def stats(num_steps: int, drafted: int, evaluated: int, accepted: int) -> dict[str, Any]:
    return {
        "num_emitted_tokens": 10,
        "num_steps": num_steps,
        "num_draft_tokens": drafted,
        "num_evaluated_drafts": evaluated,
        "num_accepted_draft_tokens": accepted,
        "prefill_seconds": 0.1,
        "decode_seconds": 1.0,
        "forward_seconds": 0.75,
        "drafters": {"fast": {"seconds": 0.125, "num_failures": 0}} if drafted else {},
    }


def sample(seconds: float, told: dict[str, Any] | None = None) -> DecodeSample:
    return DecodeSample(TOKENS, seconds, told)


def prompt_run(category: str, speedup: float, again: float) -> DecodePrompt:
    plain = stats(10, 0, 0, 0)
    samples = {
        GENERATE: [sample(8.0)],
        PLAIN: [sample(1.0, plain), sample(3.0, plain), sample(2.0, plain)],
        PLAIN_AGAIN: [sample(2.0 / again, plain)],
        FAST: [sample(2.0 / speedup, stats(5, 20, 8, 6))],
    }
    return DecodePrompt(Prompt(category, (category,)), (1, 2), samples, [0.4])


def run_of(prompts: Sequence[DecodePrompt]) -> DecodeRun:
    run = lambda job: (TOKENS, None)  # noqa: E731
    contenders = [
        DecodeContender(GENERATE, run),
        DecodeContender(PLAIN, run, True),
        DecodeContender(PLAIN_AGAIN, run, True),
        DecodeContender(FAST, run, True, Sweep(("fast",), 3)),
    ]
    numerics = {"path": "scripted", "instruction_set": "none", "threads": 1}
    about = {"source": "hand", "format": "none", "form": "as text", "num_too_long": 2}
    return DecodeRun("m", None, "float32", numerics, DecodePlan(10, 0.0, 3), contenders, list(prompts), 0.0, about)


SPEEDUPS = [("a", 1.2), ("a", 0.8), ("a", 1.6), ("b", 3.0), ("b", 2.0)]
AGAIN = [1.02, 0.97, 1.01, 0.98, 1.0]
RUN = run_of([prompt_run(c, s, again) for (c, s), again in zip(SPEEDUPS, AGAIN, strict=True)])


def fast_of(run: DecodeRun) -> ContenderSummary:
    return summarise(run).contenders[FAST]


def test_speed_ups_are_ratios_of_medians_by_prompt() -> None:
    over = fast_of(RUN).over_plain
    assert over.median == pytest.approx(1.6)
    assert over.mean == pytest.approx(np.mean([s for _, s in SPEEDUPS]))
    assert over.minimum == pytest.approx(0.8)
    assert over.together == pytest.approx(5 / sum(1 / s for _, s in SPEEDUPS))
    assert fast_of(RUN).over_generate.median == pytest.approx(4 * 1.6)


def test_every_category_has_its_own_mean_and_minimum() -> None:
    found = fast_of(RUN).by_category
    assert found.keys() == {"a", "b"}
    assert (found["a"].mean, found["a"].minimum) == pytest.approx((1.2, 0.8))
    assert (found["b"].mean, found["b"].minimum) == pytest.approx((2.5, 2.0))


def test_intervals_hold_their_figures_and_narrow_with_more_prompts() -> None:
    few = fast_of(RUN).over_plain
    many = fast_of(run_of([prompt_run(c, s, 1.0) for c, s in SPEEDUPS * 20])).over_plain
    for spread in (few, many):
        assert spread.intervals is not None
        for name in ("median", "mean", "together"):
            found = getattr(spread.intervals, name)
            assert found.low <= getattr(spread, name) <= found.high
    assert few.intervals is not None
    assert many.intervals is not None
    wide, narrow = few.intervals.mean, many.intervals.mean
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3


def test_prompts_that_all_agree_have_an_interval_of_no_width() -> None:
    over = fast_of(run_of([prompt_run("a", 1.5, 1.0) for _ in range(3)])).over_plain
    assert over.intervals is not None
    assert (over.intervals.median.low, over.intervals.median.high) == pytest.approx((1.5, 1.5))


def test_one_prompt_has_no_interval() -> None:
    alone = run_of([prompt_run("a", 1.5, 0.9)])
    assert fast_of(alone).over_plain.intervals is None
    assert summarise(alone).noise == pytest.approx(0.1)
    assert contenders_table(alone, summarise(alone)).rows[-1][3] == "1.50"


def test_a_speed_up_is_told_in_times_of_the_noise() -> None:
    summary = summarise(RUN)
    assert summary.noise == pytest.approx(0.03)  # the median's interval ends at the prompt that was 0.97
    assert summary.contenders[FAST].times_noise == pytest.approx(0.6 / 0.03)
    assert summary.contenders[PLAIN].times_noise is None


def test_alpha_is_not_the_share_of_proposed_drafts() -> None:
    steps = fast_of(RUN).steps
    assert steps is not None
    assert (steps.mean_acceptance_length, steps.draft_acceptance_rate, steps.acceptance_rate) == (2.0, 6 / 20, 6 / 8)
    plain = summarise(RUN).contenders[PLAIN].steps
    assert plain is not None
    assert plain.acceptance_rate == 0.0


def test_tables_and_json_say_all_that() -> None:
    summary = summarise(RUN)
    table = contenders_table(RUN, summary)
    cells = dict(zip(table.columns, table.rows[-1], strict=True))
    assert cells["x plain"].startswith("1.60 (")
    assert cells["x noise"] == "20.0"
    assert any("Left out: 2 prompts" in note for note in table.notes)
    assert any("by up to 3.0%" in note for note in table.notes)
    by_category = categories_table(RUN, summary)
    assert [(row[0], row[1], row[3], row[4]) for row in by_category.rows] == [
        ("a", "3", "1.20", "0.80"),
        ("b", "2", "2.50", "2.00"),
    ]
    found = as_json(RUN, summary)
    entry = next(e for e in found["contenders"] if e["name"] == FAST)
    assert entry["by_category"]["b"]["minimum"] == pytest.approx(2.0)
    assert entry["over_plain"]["intervals"]["median"].keys() == {"low", "high"}
    assert found["prompt_set"]["num_too_long"] == 2
