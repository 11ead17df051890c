"""How well uncertainty foretells error where truth is known: held-out spoken commands, field by field.

A field of an answer is an error unless the true answer has a field of that name with that very value. What an answer
leaves out has no tokens, so nothing was unsure about it: it is counted and not judged. A field is as unsure as its
worst token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from paceline.errors import ConfigError
from paceline.llm import LLM
from paceline.output import Output
from paceline.report.fields import Command, Field, fields_of, tokens_within
from paceline.report.measures import MeasuredToken, measured
from paceline.report.scoring import Score, risk, score

MEASURES = ("entropy", "probability", "margin", "disagreement")
MAX_TOKENS = 120  # of an answer
_TOGETHER = 8  # commands decoded as one batch
_NUM_EXAMPLES = 4


@dataclass(frozen=True)
class JudgedField:
    """A field of the answer to a command, and how unsure its worst token was by each measure; larger is less sure."""

    command: str
    field: Field
    expected: str  # the true value; "nothing" if the true answer has no such field
    is_error: bool
    uncertainty: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The judged fields of a model's answers, and how well each measure foretold the errors among them."""

    model: str
    fields: list[JudgedField]
    num_commands: int
    num_omitted: int  # true fields that the answers do not have
    scores: list[Score]
    slot_scores: list[Score]  # of slots alone: telling the hard fields from the easy intents is no great art

    @cached_property
    def error_rate(self) -> float:
        """Wrong fields over all."""
        return float(np.mean([judged.is_error for judged in self.fields]))

    @cached_property
    def least_aurc(self) -> float:
        """The area under the risk of an uncertainty that knows every error."""
        errors = np.array([judged.is_error for judged in self.fields])
        return float(risk(errors.astype(np.float64), errors).mean())

    @property
    def sentence(self) -> str:
        """What was measured."""
        drafted = np.mean([judged.uncertainty["disagreement"] > 0.0 for judged in self.fields])
        return (
            f"{self.model or 'The model'}: {len(self.fields)} fields in the answers to {self.num_commands} held-out "
            f"commands, {self.error_rate:.1%} of them wrong; {self.num_omitted} true fields are missing from the "
            f"answers and not judged. Drafts stood beside {drafted:.0%} of the fields."
        )

    @property
    def table(self) -> list[tuple[str, ...]]:
        """By measure: AUROC and interval over all fields and over slots, AURC, errors among the surest half."""
        return [
            (every.measure, *_discrimination(every), *_discrimination(slots), f"{every.aurc:.3f}", _share(every))
            for every, slots in zip(self.scores, self.slot_scores, strict=True)
        ]

    @property
    def misjudged(self) -> list[JudgedField]:
        """The surest errors and the least sure right fields, by entropy."""
        ranked = sorted(self.fields, key=lambda judged: judged.uncertainty["entropy"])
        sure_and_wrong = [judged for judged in ranked if judged.is_error][:_NUM_EXAMPLES]
        unsure_and_right = [judged for judged in reversed(ranked) if not judged.is_error][:_NUM_EXAMPLES]
        return sure_and_wrong + unsure_and_right


def evaluate(llm: LLM, commands: Sequence[Command], advance: Callable[[], None]) -> Evaluation:
    """Answer every command greedily and judge the fields; `advance` is called once per command."""
    judged: list[JudgedField] = []
    groups: list[int] = []
    num_omitted = 0
    for start in range(0, len(commands), _TOGETHER):
        some = commands[start : start + _TOGETHER]
        outputs = llm.generate([command.prompt for command in some], max_tokens=MAX_TOKENS)
        for index, (command, output) in enumerate(zip(some, outputs, strict=True), start):
            fields = judge(command, output)
            judged += fields
            groups += [index] * len(fields)
            num_omitted += len(command.truth.keys() - {entry.field.name for entry in fields})
            advance()
    if not judged:
        raise ConfigError(f"none of the {len(commands)} answers has a field; allowed: a model that answers in JSON")
    slots = [i for i, entry in enumerate(judged) if entry.field.name != "intent"]
    name = llm.info.name if llm.info else ""
    every = _scores(judged, groups)
    return Evaluation(
        name, judged, len(commands), num_omitted, every, _scores([judged[i] for i in slots], [groups[i] for i in slots])
    )


def _scores(judged: Sequence[JudgedField], groups: Sequence[int]) -> list[Score]:
    errors = [entry.is_error for entry in judged]
    return [score(name, [entry.uncertainty[name] for entry in judged], errors, groups) for name in MEASURES]


def judge(command: Command, output: Output) -> list[JudgedField]:
    """The fields of an answer, judged by the true one."""
    tokens = measured(output)
    texts = [token.text for token in output.tokens]
    truth = command.truth
    return [
        JudgedField(
            command.text,
            field,
            truth.get(field.name, "nothing"),
            truth.get(field.name) != field.value,
            _worst([tokens[i] for i in tokens_within(texts, field.start, field.end)]),
        )
        for field in fields_of("".join(texts))
    ]


def _discrimination(found: Score) -> tuple[str, str]:
    low, high = found.interval
    return f"{found.auroc:.3f}", f"{low:.3f} to {high:.3f}"


def _share(found: Score) -> str:
    return f"{100 * found.half_risk:.1f} %"


def _worst(tokens: Sequence[MeasuredToken]) -> dict[str, float]:
    """Each measure of the least sure token; no disagreement where nobody drafted."""
    return {
        "entropy": max(token.token.entropy for token in tokens),
        "probability": 1.0 - min(token.probability for token in tokens),
        "margin": -min(token.token.margin for token in tokens),
        "disagreement": max(token.place.disagreement or 0.0 for token in tokens),
    }
