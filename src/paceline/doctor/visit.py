"""A visit to the doctor: record, time, replay, predict, and look for what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from paceline.doctor.costs import ForwardPace, MeasuredCosts, forward_pace, measured_costs
from paceline.doctor.machine import LoadWatch
from paceline.doctor.prediction import Prediction, predict
from paceline.doctor.questions import Question
from paceline.doctor.recording import RecordedOutput, record
from paceline.doctor.replay import Replayed, Replayer
from paceline.errors import ModelError
from paceline.llm import LLM
from paceline.options import Drafters
from paceline.pacing import measure

_TURNS = 3  # replays under the pacer that count, after one in the other direction that does not


@dataclass(frozen=True)
class Visit:
    """All that was found out."""

    recordings: list[RecordedOutput]
    costs: MeasuredCosts
    plain: list[Replayed]
    paced: list[list[Replayed]]  # by turn
    pace: ForwardPace
    busy_elsewhere: float  # processors that others kept at work meanwhile

    @property
    def categories(self) -> list[str]:
        """The kinds of text, in order."""
        return list(dict.fromkeys(recording.question.category for recording in self.recordings))

    def prediction(self, category: str | None = None) -> Prediction:
        """For one kind of text, or for all."""
        wanted = [i for i, r in enumerate(self.recordings) if category in (None, r.question.category)]
        return predict([self.plain[i] for i in wanted], [[turn[i] for i in wanted] for turn in self.paced], self.costs)


def num_units(questions: Sequence[Question]) -> int:
    """How often `examine` reports that it got further."""
    return len(questions) * (_TURNS + 3)


def examine(
    llm: LLM, questions: Sequence[Question], max_tokens: int, drafters: Drafters, advance: Callable[[], None]
) -> Visit:
    """One pass of the target over the questions, and drafting simulated over what it said."""
    if llm.target.reads is not None:
        raise ModelError("this model reads a source; the doctor examines models that go on with a text")
    recordings, watch = [], LoadWatch()
    for question in questions:
        recordings.append(record(llm, question, max_tokens))
        advance()
    contexts = [len(r.ids) + len(r.tokens) // 2 for r in recordings]
    costs = measured_costs(llm.target, measure(llm.target), contexts)
    pace = forward_pace(llm.target, costs.table, int(median(contexts)))
    plain, paced = _replays(llm, recordings, costs, drafters, advance)
    return Visit(recordings, costs, plain, paced, pace, watch.busy_elsewhere())


def _replays(
    llm: LLM,
    recordings: Sequence[RecordedOutput],
    costs: MeasuredCosts,
    drafters: Drafters,
    advance: Callable[[], None],
) -> tuple[list[Replayed], list[list[Replayed]]]:
    usual, places = costs.usual(), range(len(recordings))

    def told(replayed: Replayed) -> Replayed:
        advance()
        return replayed

    with Replayer(llm, recordings, costs.table, drafters) as replayer:
        for index in reversed(places):
            told(replayer.paced(index, usual, "warm-up"))
        plain = [told(replayer.plain(index, usual)) for index in places]
        paced = [[told(replayer.paced(index, usual, str(turn))) for index in places] for turn in range(_TURNS)]
    return plain, paced
