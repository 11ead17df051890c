"""The protocol of training, searched: successive halving over single changes of the usual recipe, and their unions.

All settings of a rung are trained for the same time on the same data, with the same seed and so the same texts and
anchors step by step, and are judged on the same held-out anchors: differences are paired, and so several times sharper.
What counts is predicted speed: tokens a step over what the step costs. Some choices look useless early (a transition,
say), so each rung keeps one setting that its rank would have dropped, drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.training.data import Document
from paceline.training.recipe import Recipe
from paceline.training.walking import Walked

Change = tuple[str, Any]  # a field of the recipe, and its value; a mix in pairs
RUNGS = (16, 8, 4)  # settings; each rung trains twice as long as the one before
FINAL = 14  # the winner's time, in that of a setting of the first rung
_UNIONS = 3
_DRAWS = 2000  # of the bootstrap
_INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Setting:
    """Changes of the usual recipe."""

    changes: tuple[Change, ...] = ()

    def recipe(self, usual: Recipe) -> Recipe:
        """The recipe that it stands for."""
        changed: dict[str, Any] = {name: dict(value) if name == "mix" else value for name, value in self.changes}
        return replace(usual, **changed)

    def __str__(self) -> str:
        return ", ".join(f"{name} {_short(value)}" for name, value in self.changes) or "the usual recipe"


@dataclass(frozen=True)
class Trial:
    """A setting that was trained: its steps through held-out text, and what a step costs in plain steps."""

    setting: Setting
    walked: Walked
    cost: float
    minutes: float

    @property
    def speed(self) -> float:
        """Predicted tokens in the time of a plain step."""
        return self.walked.tau / self.cost


@dataclass(frozen=True)
class Effect:
    """What a setting brought against another one of its rung, in percent of speed, with an interval.

    The interval is over held-out documents, resampled jointly for both; another seed would add to it.
    """

    setting: Setting
    rung: int
    percent: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out nothing at all."""
        return self.low > 0.0 or self.high < 0.0


Try = Callable[[Setting, float], Trial]  # trains a setting for so many minutes


def changes(usual: Recipe, depth: int) -> list[Change]:
    """What is tried, one by one: taps, layers, block length, transition, loss, mix, rate."""
    middle = depth // 2
    taps = [(min(2, depth), middle, max(depth - 1, 1)), (middle, max(depth - 2, 1), depth), (max(depth - 1, 1),)]
    found: list[Change] = [("taps", tuple(sorted(set(one)))) for one in taps]
    found += [("num_layers", 3 - usual.num_layers if usual.num_layers < 3 else 2), ("block_size", 4), ("block_size", 6)]
    found += [("transition", kind) for kind in ("vanilla", "gated", "rnn") if kind != usual.transition]
    found += [("loss", kind) for kind in ("kl", "tv", "lk", "match") if kind != usual.loss]
    found += [("weights", "pace" if usual.weights == "decay" else "decay")]
    found += [("optimizer", kind) for kind in ("adamw", "muon") if kind != usual.optimizer]
    found += [("rate", usual.rate * factor) for factor in (0.5, 2.0)]
    found += [("mix", ((1.0, 1.0),)), ("mix", ((0.0, 0.6), (0.7, 0.2), (1.0, 0.2)))]
    return [(name, value) for name, value in found if getattr(usual, name) != value]


def search(
    usual: Recipe, depth: int, minutes: float, attempt: Try, tell: Callable[[float, str], None]
) -> tuple[list[list[Trial]], Setting]:
    """The rungs' trials, best first, and the setting that won; `minutes` are those of training for all rungs."""
    unit = minutes / (sum(count * 2**i for i, count in enumerate(RUNGS)) + FINAL)
    draw = np.random.default_rng([usual.seed, 7])
    settings = [Setting(), *(Setting((change,)) for change in _drawn(changes(usual, depth), RUNGS[0] - 1, draw))]
    rungs: list[list[Trial]] = []
    for number, size in enumerate(RUNGS):
        trials: list[Trial] = []
        for setting in settings[:size]:
            tell(_spent(number, len(trials)), f"rung {number + 1}: {setting}")
            trials.append(attempt(setting, unit * 2**number))
        rungs.append(sorted(trials, key=lambda trial: -trial.speed))
        if number + 1 < len(RUNGS):
            settings = _next(rungs[-1], RUNGS[number + 1], draw)
    return rungs, rungs[-1][0].setting


def _drawn(found: Sequence[Change], count: int, draw: np.random.Generator) -> list[Change]:
    """So many of them at random, in their order."""
    chosen = sorted(draw.permutation(len(found))[:count].tolist())
    return [found[index] for index in chosen]


def _next(trials: Sequence[Trial], size: int, draw: np.random.Generator) -> list[Setting]:
    """The best, the unions of the best changes, one that was to be dropped, and always the usual recipe."""
    ranked = [trial.setting for trial in trials]
    usual = next(trial for trial in trials if not trial.setting.changes)
    better = [trial.setting for trial in trials if trial.speed > usual.speed]
    unions = [union(better[:count]) for count in range(2, min(len(better), _UNIONS + 1) + 1)]
    found = [*dict.fromkeys([Setting(), *unions[: size // 3], *ranked])]
    kept, dropped = found[: size - 1], [setting for setting in found[size - 1 :] if setting in ranked]
    return [*kept, *([dropped[int(draw.integers(len(dropped)))]] if dropped else [])]


def union(settings: Sequence[Setting]) -> Setting:
    """All their changes; of one field the first, which is the best."""
    found: dict[str, Any] = {}
    for setting in settings:
        for name, value in setting.changes:
            found.setdefault(name, value)
    return Setting(tuple(sorted(found.items())))


def effects(rungs: Sequence[Sequence[Trial]]) -> list[Effect]:
    """Of every trial against the usual recipe in the same rung, the last rung first."""
    return [
        effect_of(trial, next(one for one in trials if not one.setting.changes), number)
        for number, trials in reversed([*enumerate(rungs)])
        for trial in trials
        if trial.setting.changes
    ]


def effect_of(trial: Trial, usual: Trial, rung: int) -> Effect:
    """Paired over the held-out documents that both were walked on."""
    shared = sorted(trial.walked.documents.keys() & usual.walked.documents.keys())
    mine, other = (np.array([one.walked.documents[i] for i in shared]) for one in (trial, usual))
    price = np.log(usual.cost / trial.cost)
    chosen = np.random.default_rng(rung).integers(0, len(shared), (_DRAWS, len(shared)))
    drawn = np.log(_taus(mine[chosen]) / _taus(other[chosen])) + price
    low, high = np.percentile(100.0 * np.expm1(drawn), _INTERVAL)
    middle = 100.0 * float(np.expm1(np.log(_taus(mine) / _taus(other)) + price))
    return Effect(trial.setting, rung, middle, float(low), float(high))


def _taus(documents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of documents (..., n, 2), each its tokens and steps."""
    return np.asarray(documents[..., 0].sum(-1) / documents[..., 1].sum(-1))


def of_mix(documents: Sequence[Document], mix: Mapping[float, float]) -> list[Document]:
    """As many of the documents as have the mix's shares of temperatures, the first of each."""
    by_heat = {heat: [d for d in documents if abs(d.entry.temperature - heat) < 1e-6] for heat in mix}
    total = sum(mix.values())
    whole = min((len(by_heat[heat]) * total / share for heat, share in mix.items()), default=0.0)
    kept = {id(d) for heat, share in mix.items() for d in by_heat[heat][: int(whole * share / total)]}
    return [d for d in documents if id(d) in kept]


def _spent(rung: int, done: int) -> float:
    """The share of the whole that was trained before a rung's trial."""
    total = sum(count * 2**i for i, count in enumerate(RUNGS)) + FINAL
    spent = sum(count * 2**i for i, count in enumerate(RUNGS[:rung])) + done * 2**rung
    return float(spent) / float(total)


def _short(value: Any) -> str:
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return " ".join(f"{heat:g}:{share:g}" for heat, share in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
