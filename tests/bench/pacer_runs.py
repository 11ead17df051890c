"""Measurements of the pacer that were never made, with any figures."""

from __future__ import annotations

from itertools import product
from typing import Any

from paceline.bench.pacer import PACER, PLAIN, PLAIN_AGAIN, PacerPlan, PacerPrompt, PacerRun, PacerSample
from paceline.bench.tasks import Task
from paceline.bench.watch import HostStep

FIXED = {f"{drafter} {budget}": drafter for drafter, budget in product(("near", "far"), (3, 7))}
TOKENS = (5, 6, 7, 8)


def account(elapsed: float = 1.0, allowed: float = 1.1, cost_error: float = 0.05) -> dict[str, Any]:
    return {
        "elapsed_seconds": elapsed,
        "bound_seconds": allowed + cost_error,
        "cost_error_seconds": cost_error,
        "stops": {"guard": 1, "idle": 3},
    }


def sample(seconds: float, num_drafts: int = 1, tokens: tuple[int, ...] = TOKENS, **of_pacing: float) -> PacerSample:
    stats = {
        "num_draft_tokens": num_drafts,
        "num_emitted_tokens": len(tokens),
        "num_steps": 2,
        "decode_seconds": seconds / 2,
        "pacing": account(**of_pacing),
        "memory": {"peak_bytes": 10**6},
        "drafters": {},
    }
    return PacerSample(tokens, tuple(-0.5 for _ in tokens), seconds, stats)


def prompt(task: str, seconds: dict[str, float], silent: str = "") -> PacerPrompt:
    """A prompt that took so long: in the rounds half, once and twice that, or the same in the sweep."""
    swept = {n: sample(s, num_drafts=int(not silent or silent not in n)) for n, s in seconds.items()}
    timed = {name: [sample(s * scale) for scale in (0.5, 1.0, 2.0)] for name, s in seconds.items()}
    return PacerPrompt(Task(task, "once"), (1, 2, 3), swept, timed)


def run_of(prompts: list[PacerPrompt], steps: list[HostStep] | None = None, name: str = "inflated") -> PacerRun:
    plan = PacerPlan(len(TOKENS), 3, 1, 1, (3, 7))
    numerics = {"path": "made-up", "instruction_set": "none", "threads": 1}
    return PacerRun(name, "bfloat16", numerics, plan, tuple(FIXED), FIXED, prompts, steps or [])


def seconds(pacer: float, plain: float = 8.0, again: float = 8.0, **fixed: float) -> dict[str, float]:
    given = {name: fixed.get(name.replace(" ", ""), 10.0) for name in FIXED}
    return {PLAIN: plain, PACER: pacer, PLAIN_AGAIN: again, **given}
