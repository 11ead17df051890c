"""What decoding one sample of one prompt gave: text, tokens, statistics, and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paceline.engine.request import Token
from paceline.engine.stats import Stats
from paceline.engine.trace import StepRecord
from paceline.params import SamplingParams


@dataclass(frozen=True)
class Origin:
    """What an output came from."""

    model: str  # its name, if it has one
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    decode: Callable[[Sequence[int]], str]  # token ids to text


_SHOWN = 40  # characters of a text in an output's repr


@dataclass(frozen=True, repr=False)
class Output:
    """One sample of one prompt, finished."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[Token, ...]
    finish_reason: str
    seed: int
    stats: Stats
    steps: tuple[StepRecord, ...]
    origin: Origin

    def __repr__(self) -> str:
        end = self.text if len(self.text) <= _SHOWN else "…" + self.text[1 - _SHOWN :]
        pace = f"{self.stats.mean_acceptance_length:.2f} tokens/step"
        return f"Output({end!r}, {len(self.token_ids)} tokens, {self.finish_reason}, {pace})"
