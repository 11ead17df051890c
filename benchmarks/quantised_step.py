"""`step.py --quantize`: forwards by row count over files of quantised weights, by Paceline and by llama.cpp in turns.

Both read the same file, written by llama.cpp of a random model in bfloat16. Reading as many bytes as Paceline's packed
weights have takes turns too, and so does one row of Paceline with the unquantised weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gguf_files import MIXES, OWN, file_of, write_files
from llamacpp_forward import LlamaCppForward, import_llamacpp
from peers.targets import made_once
from quantised_names import OURS, PLAIN, READING, THEIRS, name

from paceline.bench.forwards import PacelineForward
from paceline.bench.memory import bytes_read
from paceline.bench.models import random_model
from paceline.bench.step import StepPlan, step_context
from paceline.bench.timing import Contender, interleave, ratio, self_ratio
from paceline.cache import cache_folder
from paceline.console import Table, progress
from paceline.errors import ConfigError
from paceline.model.loading import load_target

FILES = {"int4": ("Q4_K_M", "Q4_0"), "int8": ("Q8_0",)}
_SPARE = 1024  # tokens of the pool beside the context


@dataclass(frozen=True)
class Side:
    """Both engines on one file."""

    mix: str
    ours: PacelineForward
    theirs: LlamaCppForward
    num_bytes: int  # of packed weights that one forward of ours reads
    numerics: Mapping[str, Any]


def quantised_step(shape: str, kind: str, plan: StepPlan) -> dict[str, Any]:
    """Seconds of every contender by its name, ready for JSON.

    Raises:
        ConfigError: no such kind.
        CannotCompeteError: llama.cpp, which writes the files, is not installed.
    """
    if kind not in FILES:
        raise ConfigError(f"quantize is {kind!r}; allowed: {', '.join(FILES)}")
    with progress(f"{shape}: files"):
        folder = _files(shape)
    with ExitStack() as closing:
        sides = [closing.enter_context(_entered(folder, mix, plan)) for mix in FILES[kind]]
        plain = closing.enter_context(_ours(file_of(folder, OWN), plan))[0]
        errors = {side.mix: side.theirs.disagreement(side.ours, max(plan.rows)) for side in sides}
        with progress(f"{shape}: forwards", plan.repeats + 1) as advance:
            spent = interleave(_contenders(sides, plain, plan), plan.repeats, plan.seconds, advance, plan.rest)
        found = {"kind": "quantised-step", "shape": shape, "quantize": kind, "context": plan.context}
        found |= {"rows": list(plan.rows), "seconds": spent, "disagreement": errors}
        found |= {"bytes": {side.mix: side.num_bytes for side in sides}, "numerics": dict(sides[0].numerics)}
        return found | {"llamacpp": sides[0].theirs.about()}


def _files(shape: str) -> Path:
    """A folder of the model's files, made once."""
    api = import_llamacpp()

    def fill(folder: Path) -> None:
        write_files(random_model(shape, torch.bfloat16, torch.device("cpu")), tuple(MIXES), folder, api)

    return made_once(cache_folder() / "step" / f"{shape}-{api.__version__}", fill)


@contextmanager
def _entered(folder: Path, mix: str, plan: StepPlan) -> Iterator[Side]:
    path = file_of(folder, mix)
    with _ours(path, plan) as (ours, target, numerics):
        theirs = LlamaCppForward(path, step_context(target.decoder.model, plan))
        with ExitStack() as closing:
            closing.callback(theirs.close)
            yield Side(mix, ours, theirs, bytes_read(target.decoder.model), numerics)


@contextmanager
def _ours(path: Path, plan: StepPlan) -> Iterator[tuple[PacelineForward, Any, Mapping[str, Any]]]:
    target, info = load_target(str(path), cache_tokens=plan.context + _SPARE)
    ours = PacelineForward(target.decoder, step_context(target.decoder.model, plan))
    try:
        yield ours, target, info.numerics
    finally:
        ours.close()


def _contenders(sides: list[Side], plain: PacelineForward, plan: StepPlan) -> list[Contender]:
    found = [_reading(side) for side in sides]
    for count in plan.rows:
        for side in sides:
            found.append(side.ours.contender(name(OURS, side.mix, count), count))
            found.append(side.theirs.contender(name(THEIRS, side.mix, count), count))
    return [*found, plain.contender(PLAIN, 1)]


def _reading(side: Side) -> Contender:
    source = torch.ones(side.num_bytes // 4)
    return Contender(f"{READING} {side.mix}", lambda: source.sum().item())


def quantised_table(found: Mapping[str, Any]) -> Table:
    """Milliseconds by rows, with multiples of one row, and the ratio of both engines on each file."""
    rounds = len(found["seconds"][PLAIN])
    title = f"{found['shape']}, {found['quantize']}, context {found['context']}: one forward, median of {rounds}"
    mixes = list(found["bytes"])
    heads = [column for mix in mixes for column in (f"{OURS} {mix} ms", "x 1 row", f"{THEIRS} ms", f"{OURS} / theirs")]
    table = Table(title, ["rows", *heads])
    for count in found["rows"]:
        table.rows.append([str(count), *[cell for mix in mixes for cell in _cells(found, mix, count)]])
    table.notes += [_reading_note(found, mix) for mix in mixes] + _notes(found)
    return table


def _cells(found: Mapping[str, Any], mix: str, count: int) -> list[str]:
    spent = found["seconds"]
    ours, theirs = spent[name(OURS, mix, count)], spent[name(THEIRS, mix, count)]
    first = spent[name(OURS, mix, found["rows"][0])]
    multiple = median(ours) / median(first)
    return [f"{median(ours) * 1e3:.2f}", f"{multiple:.2f}", f"{median(theirs) * 1e3:.2f}", str(ratio(ours, theirs))]


def _reading_note(found: Mapping[str, Any], mix: str) -> str:
    seconds, num_bytes = median(found["seconds"][f"{READING} {mix}"]), found["bytes"][mix]
    return (
        f"{mix}: {num_bytes / 1e6:.0f} MB of packed weights; reading as many takes {seconds * 1e3:.2f} ms "
        f"({num_bytes / seconds / 1e9:.1f} GB/s); logits of both differ by {found['disagreement'][mix]:.1e}, relative"
    )


def _notes(found: Mapping[str, Any]) -> list[str]:
    about, numerics = found["llamacpp"], found["numerics"]
    deviations = [abs(r - 1.0) for s in found["seconds"].values() if (r := self_ratio(s)) is not None]
    noise = f"at most {max(deviations):.1%}, median {median(deviations):.1%}" if deviations else "unknown"
    return [
        f"{PLAIN}, 1 row: {median(found['seconds'][PLAIN]) * 1e3:.2f} ms",
        f"Noise: contenders against themselves, every other round, differ by {noise}",
        f"Numeric path: {numerics['path']}, {numerics['threads']} threads; llama-cpp-python {about['version']}, "
        f"{about['threads']} threads; {about['system']}",
    ]
