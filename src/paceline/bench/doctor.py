"""`paceline bench doctor`: what `paceline doctor` predicts for the bench tasks, against runs that were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from paceline.bench.subject import Subject
from paceline.bench.tasks import Task
from paceline.console import Table
from paceline.doctor.prediction import Interval, Prediction
from paceline.doctor.questions import Question
from paceline.doctor.recording import RecordedOutput
from paceline.doctor.visit import Visit, examine, num_units
from paceline.engine.ports import Pacer
from paceline.engine.stats import Stats
from paceline.llm import LLM
from paceline.pacing import AdaptivePacer, CostTable, FixedPacer

_SAME_PACE = 1.1  # by as much may plain decoding be faster or slower after a visit than the visit took it to be
_VISITS = 3  # at most, to a task


@dataclass(frozen=True)
class Figure:
    """One predicted figure of one task, and the measured one."""

    task: str
    name: str
    predicted: Interval
    measured: float

    @property
    def holds(self) -> bool:
        """Whether the interval holds."""
        return self.predicted.holds(self.measured)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"holds": self.holds}


def num_doctor_units(tasks: Sequence[Task], repeats: int) -> int:
    """How often `bench_doctor` reports that it got further."""
    return num_units(questions_of(tasks)) + len(tasks) * (2 * repeats + 1)


def questions_of(tasks: Sequence[Task]) -> list[Question]:
    """The tasks as a user's own text."""
    return [Question(task.prompt, task.task, task.sampling, task.prediction) for task in tasks]


@dataclass(frozen=True)
class DoctorRun:
    """All figures, and those of visits that were made again: plain decoding had another pace after them."""

    figures: list[Figure]
    discarded: list[Figure]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: [f.as_dict() for f in getattr(self, name)] for name in ("figures", "discarded")}


def bench_doctor(
    subject: Subject, tasks: Sequence[Task], max_tokens: int, repeats: int, advance: Callable[[], None]
) -> DoctorRun:
    """For each task a visit, and then its prompts in turns with plain decoding.

    What a machine does for its other tenants is no matter of the text: where plain decoding alone shows that its pace
    has changed since the visit, the visit is made again.
    """
    run = DoctorRun([], [])
    for name in dict.fromkeys(task.task for task in tasks):
        own = [task for task in tasks if task.task == name]
        for left in reversed(range(_VISITS)):
            visit = examine(subject.llm, questions_of(own), max_tokens, subject.drafters, advance)
            plain, paced = _measure(subject, visit, repeats, advance)
            figures = compare(name, visit.prediction(), plain, paced)
            if left == 0 or has_same_pace(visit, plain):
                run.figures.extend(figures)
                break
            run.discarded.extend(figures)
    return run


def has_same_pace(visit: Visit, plain: Sequence[Sequence[Stats]]) -> bool:
    """Whether plain decoding takes about as long as the visit took it to take."""
    cost = visit.costs.usual()
    change = _seconds(plain) / sum(replay.seconds(cost) for replay in visit.plain)
    return 1 / _SAME_PACE <= change <= _SAME_PACE


def _measure(
    subject: Subject, visit: Visit, repeats: int, advance: Callable[[], None]
) -> tuple[list[list[Stats]], list[list[Stats]]]:
    """Statistics by round and prompt, plain and paced, of a pacer and drafters that know nothing of other tasks."""
    pacer = AdaptivePacer(CostTable(visit.costs.table))
    target, tokenizer = subject.llm.target, subject.llm.tokenizer
    plain: list[list[Stats]] = []
    paced: list[list[Stats]] = []
    with LLM.from_target(target, tokenizer, drafters=subject.drafters, pacer=pacer, info=subject.llm.info) as llm:
        for recording in reversed(visit.recordings):  # as the replays' pacer was warmed
            _decode(llm, recording, pacer, "warm-up")
            advance()
        for turn in range(repeats):
            plain.append([])
            paced.append([])
            for recording in visit.recordings:
                plain[-1].append(_decode(llm, recording, FixedPacer(0), "plain"))
                paced[-1].append(_decode(llm, recording, pacer, str(turn)))
                advance()
                advance()
    return plain, paced


def _decode(llm: LLM, recording: RecordedOutput, pacer: Pacer, turn: str) -> Stats:
    output = llm.generate(
        list(recording.ids),
        drafters="none" if isinstance(pacer, FixedPacer) else None,
        prediction=recording.question.prediction,
        tenant=f"measured, {turn}",
        pacer=pacer,
        **recording.sampling,
    )
    stats: Stats = output.stats
    return stats


def compare(
    task: str, found: Prediction, plain: Sequence[Sequence[Stats]], paced: Sequence[Sequence[Stats]]
) -> list[Figure]:
    """Each figure of a task; `plain` and `paced` are statistics by round and prompt."""
    accepted = ("num_accepted_draft_tokens", "num_draft_tokens")
    return [
        Figure(task, "speed-up", found.speedup, _seconds(plain) / _seconds(paced)),
        Figure(task, "tokens a step", found.mean_acceptance_length, _share(paced, "num_emitted_tokens", "num_steps")),
        Figure(task, "acceptance rate", found.acceptance_rate, _share(paced, *accepted)),
    ]


def _seconds(rounds: Sequence[Sequence[Stats]]) -> float:
    return sum(median(float(stats.decode_seconds) for stats in turns) for turns in zip(*rounds, strict=True))


def _share(rounds: Sequence[Sequence[Stats]], part: str, whole: str) -> float:
    above, below = (sum(int(getattr(stats, key)) for prompts in rounds for stats in prompts) for key in (part, whole))
    return above / below if below else 0.0


def doctor_table(name: str, run: DoctorRun) -> Table:
    """One line per task."""
    names = list(dict.fromkeys(figure.name for figure in run.figures))
    table = Table(f"{name}: predicted, and measured after it", ("task", *names))
    for task in dict.fromkeys(figure.task for figure in run.figures):
        own = [figure for figure in run.figures if figure.task == task]
        cells = [f"{f.predicted} · {f.measured:.2f}{'' if f.holds else ' !'}" for f in own]
        table.rows.append((task, *cells))
    table.notes.append("A mark: the measured figure is outside of the interval")
    if run.discarded:
        held = sum(figure.holds for figure in run.discarded)
        tasks = ", ".join(dict.fromkeys(figure.task for figure in run.discarded))
        table.notes.append(
            f"Visited again, since plain decoding's pace had changed by more than {_SAME_PACE - 1:.0%}: {tasks}. Of "
            f"the {len(run.discarded)} figures left out {held} held"
        )
    return table
