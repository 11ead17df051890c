"""`paceline train --search`: which protocol makes this model fastest on these prompts, and what mattered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from paceline.errors import ConfigError
from paceline.llm import LLM
from paceline.training.block import BlockTrainee
from paceline.training.costs import spec_of, step_costs
from paceline.training.data import Corpus, Document
from paceline.training.evaluate import DEPTH
from paceline.training.features import layers_of
from paceline.training.halving import FINAL, RUNGS, Effect, Setting, Trial, effects, of_mix, search
from paceline.training.loop import Budget, Run
from paceline.training.recipe import Recipe
from paceline.training.session import Order, Outcome, Tell, check_model, read_target, recipe_of, train, write_data

_TIMED = 4  # held-out prompts on which steps are timed


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    rungs: list[list[Trial]]
    effects: list[Effect]
    winner: Setting
    outcome: Outcome


def find(order: Order, tell: Tell) -> Found:
    """Search for the minutes of an order, train the winner with what is left for it, and write the report.

    Trials that were finished before a kill are not repeated.

    Raises:
        ConfigError: an order that has nothing to search.
    """
    if order.kind not in _LABS or order.budget.steps is not None:
        raise ConfigError("a search is by minutes and of heads; allowed: --kind block without --steps")
    if order.start is not None:
        raise ConfigError("a search is of fresh heads; allowed: --search without --start")
    check_model(order.model)
    corpus, writing = write_data(order, tell)
    target = read_target(order)
    usual, depth = recipe_of(order, target), len(layers_of(target))
    minutes = max(order.budget.minutes - writing / 60.0, 0.1)
    with LLM(order.model, device=order.device) as llm:
        lab = _LABS[order.kind](order, target, corpus, llm, usual)
        rungs, winner = search(usual, depth, minutes, lab.attempt, tell)
    final = replace(order, choices={**order.choices, **_choices(winner)})
    outcome = train(_for_the_rest(final, minutes), tell)
    shutil.rmtree(order.work / "search", ignore_errors=True)
    found = Found(rungs, effects(rungs), winner, outcome)
    (order.out / "search.json").write_text(json.dumps(_as_dict(found), indent=1) + "\n", encoding="utf-8")
    return found


class Lab:
    """Trains and judges settings on one corpus, one target and one machine."""

    def __init__(self, order: Order, target: PreTrainedModel, corpus: Corpus, llm: LLM, usual: Recipe) -> None:
        self._order, self._target, self._llm, self._usual = order, target, llm, usual
        self._train, self._held_out = corpus.read(False), corpus.read(True)
        self._prompts = [document.prompt for document in self._held_out[:_TIMED]]

    def attempt(self, setting: Setting, minutes: float) -> Trial:
        """Train a setting for so long; its score is on held-out text, its cost as the engine has it."""
        recipe = setting.recipe(self._usual)
        folder = self._order.work / "search" / f"{minutes:.3f}" / _name(setting)
        documents: tuple[Sequence[Document], Sequence[Document]] = (of_mix(self._train, recipe.mix), self._held_out)
        run = Run(BlockTrainee(self._target, recipe, self._order.model), documents, folder, {"setting": str(setting)})
        run.train(Budget(minutes, looks=1))  # what it is at its end counts, and to look takes a step or ten
        run.write(folder / "head")
        depth = min(run.trainee.depth, DEPTH)
        costs = step_costs(self._llm, spec_of(folder / "head"), self._prompts, depth)
        return Trial(setting, run.walked(), costs.ratio, minutes)


_LABS = {"block": Lab}  # by kind


def report(found: Found) -> list[tuple[str, str, str, str]]:
    """Rows of a table: rung, setting, speed against the usual recipe in percent, interval."""
    return [
        (str(one.rung + 1), str(one.setting), f"{one.percent:+.1f} %", f"{one.low:+.1f} to {one.high:+.1f}")
        for one in found.effects
    ]


def _choices(setting: Setting) -> dict[str, Any]:
    return {name: dict(value) if name == "mix" else value for name, value in setting.changes}


def _for_the_rest(order: Order, minutes: float) -> Order:
    """The winner's own run: as long as its share of the search."""
    unit = minutes / (sum(count * 2**i for i, count in enumerate(RUNGS)) + FINAL)
    with suppress(FileNotFoundError):
        (order.work / "state.safetensors").unlink()
    written = json.loads((order.work / "writing.json").read_text("utf-8"))
    return replace(order, budget=Budget(unit * FINAL + written["seconds"] / 60.0), documents=written["documents"])


def _name(setting: Setting) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(setting))[:100]


def _as_dict(found: Found) -> dict[str, Any]:
    trials = [
        {"rung": number + 1, "setting": str(trial.setting), "tau": trial.walked.tau, "cost": trial.cost}
        | {"speed": trial.speed, "minutes": trial.minutes}
        for number, rung in enumerate(found.rungs)
        for trial in rung
    ]
    shown = [{**asdict(one), "setting": str(one.setting)} for one in found.effects]
    return {"winner": str(found.winner), "trials": trials, "effects": shown}
