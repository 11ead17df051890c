"""What a head that is there brings on this text, and what it brought on the text that it was trained for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.doctor.recording import RecordedOutput
from paceline.engine.request import fresh_tenant
from paceline.llm import LLM
from paceline.pacing import FixedPacer

_DRAFTS = 7  # nodes of each step
_MOST = 12  # outputs that are decoded again


@dataclass(frozen=True)
class HeadFacts:
    """Tokens a step with seven draft nodes."""

    name: str
    length: float
    promised: float | None  # of a chain of seven on held-out text of its training; None if its folder does not say


def check_head(llm: LLM, recordings: Sequence[RecordedOutput]) -> HeadFacts | None:
    """Decode recorded questions with the head that is known for the model; None without one, or without questions."""
    environment = llm.runtime.environment
    asked = [recording for recording in recordings if recording.question.output is None][:_MOST]
    if not environment.head_kind or not asked:
        return None
    steps = tokens = 0
    for recording in asked:
        how: dict[str, Any] = {"drafters": [environment.head_kind], "pacer": FixedPacer(_DRAFTS)}
        stats = llm.generate(list(recording.ids), tenant=fresh_tenant(), **how, **recording.sampling).stats
        steps, tokens = steps + stats.num_steps, tokens + stats.num_emitted_tokens
    return HeadFacts(environment.head_kind, tokens / max(steps, 1), _promised(environment.head))


def _promised(head: Any) -> float | None:
    if not isinstance(head, (str, os.PathLike)):
        return None
    try:
        found = json.loads((Path(head).expanduser() / "figures.json").read_text(encoding="utf-8"))["tau"]
        return float(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
