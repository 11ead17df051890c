"""What decoding one sample of one prompt gave: text, tokens, statistics, steps, and the report on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paceline.params import SamplingParams
from paceline.trace import StepRecord
from paceline.types import Token

if TYPE_CHECKING:
    from paceline.report.spans import UncertainSpan


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
    stats: dict[str, Any]
    steps: tuple[StepRecord, ...]
    origin: Origin

    def __repr__(self) -> str:
        end = self.text if len(self.text) <= _SHOWN else "…" + self.text[1 - _SHOWN :]
        pace = f"{self.stats['mean_acceptance_length']:.2f} tokens/step"
        return f"Output({end!r}, {len(self.token_ids)} tokens, {self.finish_reason}, {pace})"

    def uncertain_spans(self) -> list[UncertainSpan]:
        """Areas of the output in which the model was unsure, in their order; docs/report.md states the rule.

        Uncertainty is not error: a sure model can be wrong, and where many words would do it must be unsure.
        """
        from paceline.report.measures import measured
        from paceline.report.spans import uncertain_spans

        return uncertain_spans(measured(self))

    def report(self) -> str:
        """One self-contained HTML page about the output: measures by token, areas of uncertainty, pictures.

        Alternatives to a token are shown if `logprobs=5`, say, was asked for.
        """
        from paceline.report.page import page

        return page([self])
