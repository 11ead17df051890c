"""What a step with a drafter takes here, as the engine decodes: drafting, verification and all that is beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from paceline.engine.request import Drafter
from paceline.llm import LLM
from paceline.pacing import FixedPacer

_TOKENS = 48  # of each prompt, in either way; with 16 plain ones, heads of one shape came 18 % apart instead of 4


@dataclass(frozen=True)
class StepCosts:
    """Seconds of each step."""

    plain: Sequence[float]
    drafted: Sequence[float]

    @property
    def seconds(self) -> float:
        """Of a drafted step, the mean: what a second brings depends on the slow ones too."""
        return fmean(self.drafted)

    @property
    def ratio(self) -> float:
        """A drafted step in plain steps, by medians: heads are compared by it, and what disturbs one spares another."""
        return median(self.drafted) / median(self.plain)


def step_costs(llm: LLM, drafter: str | Drafter, prompts: Sequence[Sequence[int]], num_nodes: int) -> StepCosts:
    """Costs of steps with so many draft nodes of a drafter, and without, by turns on some prompts."""
    plain: list[float] = []
    drafted: list[float] = []
    for ids in prompts:
        plain += _seconds(llm, [], ids, 0)
        drafted += _seconds(llm, [drafter], ids, num_nodes)
    return StepCosts(plain, drafted)


def _seconds(llm: LLM, drafters: list[str | Drafter], ids: Sequence[int], num_nodes: int) -> list[float]:
    """Of each step behind a prompt; of those with drafts, where there are any to be."""
    out = llm.generate(list(ids), drafters=drafters, pacer=FixedPacer(num_nodes), max_tokens=_TOKENS, ignore_eos=True)
    return [step.seconds for step in out.steps if step.tree.tokens or not num_nodes]


def spec_of(folder: Path) -> str:
    """How the drafter of a head that may hardly be trained yet is asked for: as it is, and as it stays."""
    return f"block:path={folder},probe=false,learn=false"
