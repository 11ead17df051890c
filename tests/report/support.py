"""Outputs of a scripted target, which is asked for what no model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from paceline import LLM, Output
from paceline.engine.request import Token
from paceline.engine.trace import StepRecord
from paceline.engine.tree import DraftTree
from paceline.output import Origin
from paceline.params import SamplingParams
from paceline.testing import ScriptedTarget

VOCAB = 7


def target(scale: float = 1.5) -> ScriptedTarget:
    """A target whose logits are random, but a function of the whole history."""
    return ScriptedTarget(
        lambda history: np.random.default_rng([*history]).normal(scale=scale, size=VOCAB).astype(np.float32), VOCAB
    )


def decoded(drafters: Any = "none", **sampling: Any) -> Output:
    model = target()
    chosen = drafters(model) if callable(drafters) else drafters
    return LLM.from_target(model, None, drafters=chosen).generate([1, 2], **sampling)


def step(tree: DraftTree, path: Sequence[int], num_emitted: int) -> StepRecord:
    return StepRecord(tree, tuple(path), num_emitted, 0.001, 0.002, 0.0005)


def saying(texts: Sequence[str], entropies: Sequence[float] | None = None, **changes: Any) -> Output:
    """An output of given texts, whose top five spell themselves."""
    entropies = entropies or [1.0] * len(texts)
    top = tuple((i, -0.5 - i) for i in range(5))
    tokens = tuple(
        Token(i, text, "target", -0.5, entropy, top, 0.25, 16.0)
        for i, (text, entropy) in enumerate(zip(texts, entropies, strict=True))
    )
    steps = tuple(step(DraftTree(), (), 1) for _ in texts)
    origin = Origin("scripted", (), SamplingParams(), lambda ids: "".join(texts[i % len(texts)] for i in ids))
    stats = decoded(max_tokens=1).stats
    output = Output("".join(texts), tuple(range(len(texts))), tokens, "length", 0, stats, steps, origin)
    return replace(output, **changes)
