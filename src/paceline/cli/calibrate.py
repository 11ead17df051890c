"""`paceline calibrate`: from labelled examples, how sure the model has to be so that its answers may be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DTYPE, MODEL
from paceline.console import progress
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.deciding.calibration import Calibration
    from paceline.deciding.choices import Choice
    from paceline.deciding.labelled import Labelled
    from paceline.deciding.learning import Example, Learnt
    from paceline.llm import LLM

_TOGETHER = 32  # prompts that are read as one batch


def calibrate(
    labelled: Path = typer.Option(..., help='Lines {"prompt": ..., "choices": [...], "label": ...}.'),
    error: float = typer.Option(..., help="Of what is answered, the share that may be wrong: 0.02 is 2 %."),
    confidence: float = typer.Option(0.95, help="With which probability that is to hold."),
    end: list[str] = typer.Option(None, help="A text that has to follow a choice, as in decide; may be repeated."),
    out: Path = typer.Option(Path("calibration.json"), help="Where the calibration goes, for decide."),
    decisions: Path = typer.Option(None, help="Where the examples' decisions go, for `paceline report --decisions`."),
    seed: int = typer.Option(0, help="Of the split into examples to learn from and to test with."),
    model: str = MODEL,
    dtype: str = DTYPE,
    device: str = DEVICE,
) -> None:
    """Learn a temperature and a threshold at which of what is answered no more than --error is wrong."""
    from paceline.deciding.labelled import read_labelled
    from paceline.deciding.learning import Example, learn

    _check(error, confidence)
    lines, ends = read_labelled(labelled), end or None
    with load_with_progress(model, dtype=dtype, device=device, drafters="none") as llm:
        examples = [Example(one, line.label) for one, line in zip(_ask(llm, lines, ends), lines, strict=True)]
        learnt = learn(examples, error, confidence, seed)
        found = _calibration(llm, lines, learnt, (error, confidence), ends)
    found.write(out)
    if decisions is not None:
        _write(decisions, lines, examples, learnt)
    print(f"{found.promise[0].upper()}{found.promise[1:]}:")
    print(f"{found.evidence}.")
    print(out)


def _check(error: float, confidence: float) -> None:
    for name, value in (("error", error), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise ConfigError(f"--{name} is {value}; allowed: a number between 0 and 1")


def _ask(llm: LLM, lines: Sequence[Labelled], ends: list[str] | None) -> list[dict[str, float]]:
    """The log-probabilities of each line's choices; those with the same choices are read together."""
    groups: dict[tuple[Choice, ...], list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(line.choices, []).append(index)
    found: dict[int, dict[str, float]] = {}
    with progress("asking", len(lines)) as advance:
        for choices, group in groups.items():
            spellings = [list(choice.spellings) for choice in choices]
            for start in range(0, len(group), _TOGETHER):
                part = group[start : start + _TOGETHER]
                decided = llm.decide([lines[index].prompt for index in part], spellings, end=ends)
                found |= {index: dict(one.logprobs) for index, one in zip(part, decided, strict=True)}
                advance(len(part))
    return [found[index] for index in range(len(lines))]


def _calibration(
    llm: LLM, lines: Sequence[Labelled], learnt: Learnt, promised: tuple[float, float], ends: list[str] | None
) -> Calibration:
    from paceline.deciding.calibration import Calibration

    same = {tuple(sorted(line.names)) for line in lines}
    names = lines[0].names if len(same) == 1 else None
    return Calibration(
        llm.info.name if llm.info else "",
        llm.model_fingerprint,
        learnt.temperature,
        learnt.threshold,
        *promised,
        learnt.num_fitted,
        learnt.num_tested,
        learnt.num_answered,
        learnt.num_wrong,
        names,
        None if ends is None else tuple(ends),
    )


def _write(path: Path, lines: Sequence[Labelled], examples: Sequence[Example], learnt: Learnt) -> None:
    from paceline.deciding.choices import tempered
    from paceline.deciding.labelled import Decided, write_decided

    chances = [tempered(example.logprobs, learnt.temperature) for example in examples]
    pairs = zip(lines, chances, strict=True)
    write_decided(path, [Decided(line.prompt, own, line.label, learnt.threshold) for line, own in pairs])
