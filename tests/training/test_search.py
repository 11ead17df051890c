"""The search finds what pays, says with which certainty, and keeps what its rank would have dropped."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import paceline
from paceline.drafters.base import BaseDrafter
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.training.costs import step_costs
from paceline.training.data import Document, Entry
from paceline.training.halving import RUNGS, Setting, Trial, changes, effect_of, of_mix, search, union
from paceline.training.recipe import Recipe
from paceline.training.walking import Walked
from training import tiny

USUAL = Recipe(taps=(2, 4, 5))
DOCUMENTS = 60
DAWDLING = 0.05  # seconds


def walked(quality: float, seed: int) -> Walked:
    """Documents whose lengths vary a lot among themselves, and hardly between settings."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    lengths = 1.0 + common.gamma(4.0, 0.6, DOCUMENTS) * quality + 0.05 * own.standard_normal(DOCUMENTS)
    return Walked({i: (10.0 * float(x), 10.0) for i, x in enumerate(lengths)})


def attempt(truth: dict[tuple[str, Any], float], log: list[tuple[Setting, float]]) -> Any:
    def tried(setting: Setting, minutes: float) -> Trial:
        log.append((setting, minutes))
        quality = float(np.prod([truth.get(change, 0.97) for change in setting.changes] or [1.0]))
        return Trial(setting, walked(quality, len(log)), 1.3, minutes)

    return tried


def test_the_best_changes_win_together() -> None:
    log: list[tuple[Setting, float]] = []
    search(USUAL, 8, 1.0, attempt({}, log), lambda share, what: None)
    drawn = {name: (name, value) for setting, _ in log[: RUNGS[0]] for name, value in setting.changes}
    one, other, bad = list(drawn.values())[:3]
    truth, log = {one: 1.08, other: 1.06, bad: 0.5}, []
    rungs, winner = search(USUAL, 8, 62.0, attempt(truth, log), lambda share, what: None)
    assert set(winner.changes) == {one, other}
    assert [len(trials) for trials in rungs] == list(RUNGS)
    assert sum(minutes for _, minutes in log) == pytest.approx(48 * 62.0 / (48 + 14))
    for trials in rungs:
        assert Setting() in [trial.setting for trial in trials]
        assert len({trial.setting for trial in trials}) == len(trials)


def test_every_rung_keeps_one_that_its_rank_would_have_dropped() -> None:
    rungs, _ = search(USUAL, 8, 1.0, attempt({}, []), lambda share, what: None)
    ranks = [trial.setting for trial in rungs[0]]
    kept = [ranks.index(trial.setting) for trial in rungs[1] if trial.setting in ranks]
    assert max(kept) >= RUNGS[1] - 1


def test_effects_are_paired_and_honest() -> None:
    """A gain far below the spread of documents is clear; none at all is not; what costs more pays less."""
    usual = Trial(Setting(), walked(1.0, 1), 1.3, 1.0)
    better = effect_of(Trial(Setting((("loss", "kl"),)), walked(1.03, 2), 1.3, 1.0), usual, 0)
    assert better.is_clear
    assert better.low < better.percent < better.high
    assert 0.5 < better.percent < 4.0
    unpaired = np.std([s / n for s, n in usual.walked.documents.values()]) / DOCUMENTS**0.5
    assert better.high - better.low < 100 * unpaired
    same = effect_of(Trial(Setting((("loss", "tv"),)), walked(1.0, 3), 1.3, 1.0), usual, 0)
    assert not same.is_clear
    dear = effect_of(Trial(Setting((("num_layers", 2),)), walked(1.0, 3), 1.43, 1.0), usual, 0)
    assert dear.percent == pytest.approx(-100 / 11, abs=0.7)


def test_intervals_cover() -> None:
    """Of settings that bring nothing about one in twenty is called clear."""
    clear = 0
    for seed in range(60):
        trials = [Trial(Setting(), walked(1.0, 1000 + 2 * seed + i), 1.3, 1.0) for i in range(2)]
        clear += effect_of(trials[0], trials[1], seed).is_clear
    assert clear <= 10


def test_every_change_changes_something() -> None:
    found = changes(USUAL, 8)
    assert len(found) > 12
    assert {"taps", "num_layers", "block_size", "transition", "loss", "mix", "rate"} <= {name for name, _ in found}
    for change in found:
        recipe = Setting((change,)).recipe(USUAL)
        assert recipe != USUAL
        assert all(0 <= tap <= 8 for tap in recipe.taps)
    first = Setting((("loss", "kl"), ("rank", 8)))
    assert dict(union([first, Setting((("loss", "tv"), ("rate", 1.0)))]).changes) == {
        "loss": "kl",
        "rank": 8,
        "rate": 1.0,
    }


def test_a_mix_of_temperatures_is_drawn_from_the_texts() -> None:
    heats = [0.0] * 30 + [0.7] * 30 + [1.0] * 40
    documents = [Document(Entry("a", False, heat, 1, 2), np.zeros(2, np.uint16)) for heat in heats]
    assert len(of_mix(documents, {0.0: 0.3, 0.7: 0.3, 1.0: 0.4})) == 100
    assert [d.entry.temperature for d in of_mix(documents, {1.0: 1.0})] == [1.0] * 40
    mixed = [d.entry.temperature for d in of_mix(documents, {0.0: 0.6, 0.7: 0.2, 1.0: 0.2})]
    assert [mixed.count(heat) for heat in (0.0, 0.7, 1.0)] == [30, 10, 10]


class Dawdler(BaseDrafter):
    """Drafts the last token again, and takes its time."""

    name = "dawdler"

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        time.sleep(DAWDLING)
        builder = TreeBuilder(self.name)
        builder.add(-1, request.tokens[-1], score=0.5, bucket=0)
        return builder.build()


def test_a_step_costs_all_that_the_engine_does_in_it() -> None:
    """What a drafter takes is in drafted steps, and in no plain one."""
    with paceline.load(tiny.target(), drafters="none") as llm:
        costs = step_costs(llm, Dawdler(), [[5, 6, 7], [8, 9]], 3)
    assert min(costs.drafted) > DAWDLING
    assert costs.seconds == pytest.approx(sum(costs.drafted) / len(costs.drafted))
    assert min(costs.plain) < DAWDLING  # none of which it was asked in
    assert costs.ratio > 1.0
