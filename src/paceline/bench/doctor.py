"""`paceline bench doctor`: what `paceline doctor` predicts for the bench tasks, against runs that were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from paceline.bench.subject import Subject
from paceline.bench.tables import Reach, Table
from paceline.bench.tasks import Task
from paceline.doctor.prediction import Interval, Prediction
from paceline.doctor.questions import Question
from paceline.doctor.recording import Recording
from paceline.doctor.visit import Visit, examine, num_units
from paceline.llm import LLM
from paceline.pacer import FixedPacer, Pacing

Stats = dict[str, Any]


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


def bench_doctor(
    subject: Subject, tasks: Sequence[Task], max_tokens: int, repeats: int, advance: Callable[[], None]
) -> list[Figure]:
    """Predict, then measure the same prompts, in turns with plain decoding."""
    pacer = subject.llm.engine.pacer
    visit = examine(subject.llm, questions_of(tasks), max_tokens, subject.drafters, advance)
    for recording in reversed(visit.recordings):  # as the replays' pacer was warmed
        _decode(subject.llm, recording, pacer, "warm-up")
        advance()
    plain: list[list[Stats]] = []
    paced: list[list[Stats]] = []
    for turn in range(repeats):
        plain.append([])
        paced.append([])
        for recording in visit.recordings:
            plain[-1].append(_decode(subject.llm, recording, FixedPacer(0), "plain"))
            paced[-1].append(_decode(subject.llm, recording, pacer, str(turn)))
            advance()
            advance()
    return compare(visit, plain, paced)


def _decode(llm: LLM, recording: Recording, pacing: Pacing, turn: str) -> Stats:
    llm.engine.pacer = pacing
    output = llm.generate(
        list(recording.ids),
        drafters="none" if isinstance(pacing, FixedPacer) else None,
        prediction=recording.question.prediction,
        tenant=f"measured, {turn}, {recording.question.category}",
        **recording.sampling,
    )
    stats: Stats = output.stats
    return stats


def compare(visit: Visit, plain: Sequence[Sequence[Stats]], paced: Sequence[Sequence[Stats]]) -> list[Figure]:
    """Each figure of each task; `plain` and `paced` are statistics by round and recording."""
    figures = []
    for task in visit.categories:
        wanted = [i for i, r in enumerate(visit.recordings) if r.question.category == task]
        before, after = ([[turn[i] for turn in turns] for i in wanted] for turns in (plain, paced))
        found: Prediction = visit.prediction(task)
        figures += [
            Figure(task, "speed-up", found.speedup, _seconds(before) / _seconds(after)),
            Figure(
                task, "tokens a step", found.mean_acceptance_length, _share(after, "num_emitted_tokens", "num_steps")
            ),
            Figure(
                task,
                "acceptance rate",
                found.acceptance_rate,
                _share(after, "num_accepted_draft_tokens", "num_draft_tokens"),
            ),
        ]
    return figures


def _seconds(prompts: Sequence[Sequence[Stats]]) -> float:
    return sum(median(float(stats["decode_seconds"]) for stats in turns) for turns in prompts)


def _share(prompts: Sequence[Sequence[Stats]], part: str, whole: str) -> float:
    above, below = (sum(int(stats[key]) for turns in prompts for stats in turns) for key in (part, whole))
    return above / below if below else 0.0


def doctor_table(name: str, figures: Sequence[Figure]) -> Table:
    """One line per task."""
    names = list(dict.fromkeys(figure.name for figure in figures))
    table = Table(f"{name}: predicted, and measured after it", ("task", *names))
    for task in dict.fromkeys(figure.task for figure in figures):
        own = [figure for figure in figures if figure.task == task]
        cells = [f"{f.predicted} · {f.measured:.2f}{'' if f.holds else ' !'}" for f in own]
        table.rows.append((task, *cells))
    table.notes.append("A mark: the measured figure is outside of the interval")
    return table


def doctor_reach(figures: Sequence[Figure]) -> list[Reach]:
    """The two lines: intervals hold, and are not too wide."""
    num_held = sum(figure.holds for figure in figures)
    share = num_held / len(figures)
    speedups = [figure for figure in figures if figure.name == "speed-up"]
    width = median(figure.predicted.half_width for figure in speedups)
    held = sum(figure.holds for figure in speedups)
    coverage = f"{share:.0%}, {num_held} of {len(figures)} figures; of speed-ups {held} of {len(speedups)}"
    return [
        Reach("the doctor's intervals hold at least 90 % of the time", coverage, share >= 0.9),
        Reach("their median width for speed-ups is at most ± 20 %", f"± {width:.0%}", width <= 0.2),
    ]
