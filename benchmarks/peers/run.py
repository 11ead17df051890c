"""`benchmarks/peers/run`: install what is missing, let every peer compete that can, write a table for each target."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import typer
from goals import print_goals

from paceline.cache import cache_folder
from paceline.console import progress, show, write_json
from paceline.errors import ConfigError, PacelineError
from paceline.provenance import provenance
from peers.measure import Plan, line_up, measure
from peers.process import PeerProcess
from peers.prompts import prompts_of
from peers.protocol import QUANTISED, Target
from peers.recipes import RECIPES
from peers.report import as_json, markdown, table
from peers.results import Run, same_bytes, verdicts
from peers.targets import checkpoint, draft_checkpoint
from peers.venue import Venue

_DRAFT_ROOM = 32  # positions beyond the output, for drafts that reach past it


@dataclass(frozen=True)
class Settings:
    """What is decoded, and how often."""

    tasks: tuple[str, ...]
    prompts: int  # of each task
    max_tokens: int
    temperatures: tuple[float, ...]
    repeats: int
    rest: float

    @property
    def room(self) -> int:
        """Positions that a prompt leaves."""
        return self.max_tokens + _DRAFT_ROOM


@dataclass
class Record:
    """All results; written after every round, so that a run cut short leaves what it has."""

    json: Path | None
    markdown: Path | None
    origin: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def write(self) -> None:
        """Write all that there is."""
        runs = [as_json(run) for run in self.runs]
        write_json(self.json, {"provenance": self.origin, "versions": self.versions, "runs": runs})
        if self.markdown is not None:
            self.markdown.write_text(markdown(self.runs, self.versions, self.origin), encoding="utf-8")


def prepare(name: str, dtype: str, settings: Settings, venue: Venue) -> tuple[Target, list[Any]]:
    """A target's checkpoint, and the prompts for it."""
    cache = venue.cache / "models"
    with progress(f"{name}, {dtype}: preparing"):
        written = "bfloat16" if dtype in QUANTISED else dtype
        folder = checkpoint(name, written, cache)
        draft = draft_checkpoint(name, written, cache)
        prompts = prompts_of(folder, settings.tasks, settings.prompts, settings.room)
    if not prompts:
        raise ConfigError(
            f"no prompt of {', '.join(settings.tasks)} fits into {name} with {settings.max_tokens} tokens"
        )
    longest = max(len(prompt.ids) for prompt in prompts) + settings.room
    return Target(str(folder), str(draft) if draft else None, dtype, venue.threads, longest, exports=""), prompts


def compete(
    name: str, dtype: str, settings: Settings, venue: Venue, installed: Mapping[str, Path | str], record: Record
) -> None:
    """All runs on one target, from its preparation to its tables."""
    target, prompts = prepare(name, dtype, settings, venue)
    with venue.enter(installed, target) as peers:
        record.versions |= {peer: it.versions for peer, it in peers.items() if isinstance(it, PeerProcess)}
        for temperature in settings.temperatures:
            plan = Plan(settings.max_tokens, temperature, settings.repeats, settings.rest)
            run = Run(Path(name).name, dtype, plan, prompts, line_up(peers))
            record.runs.append(run)
            with progress(f"{run.target}, temperature {temperature:g}: rounds", settings.repeats + 1) as advance:
                for _ in measure(run.contenders, prompts, plan):
                    record.write()
                    advance()
            show(table(run, record.versions))
            print_goals(verdicts(run))


def main(
    targets: str = typer.Option("bundled,inflated", help="bundled, inflated (to 134 M), inflated-1b, or folders."),
    dtypes: str = typer.Option("bfloat16", help="bfloat16, float32; int4, int8: made of bfloat16."),
    peers: str = typer.Option(",".join(RECIPES), help="Who competes."),
    tasks: str = typer.Option("story,copy,command", help="Kinds of text: also maths, session."),
    prompts: int = typer.Option(2, min=1, help="Prompts of each task."),
    max_tokens: int = typer.Option(64, min=1, help="Tokens of every output."),
    temperatures: str = typer.Option("0,1", help="0 is greedy."),
    repeats: int = typer.Option(3, min=1, help="Rounds; medians count."),
    threads: int = typer.Option(2, min=1, help="Threads of every peer."),
    rest: float = typer.Option(0.25, min=0.0, help="Seconds before a turn, in which others' threads fall asleep."),
    json: Path = typer.Option(None, help="Write every sample to this file, after every round."),
    markdown_file: Path = typer.Option(None, "--markdown", help="Write the tables to this file, after every round."),
    install_only: bool = typer.Option(False, "--install-only", help="Make the environments and end."),
) -> None:
    """Let Paceline and its peers decode the same prompts with the same weights, in turns."""
    torch.set_num_threads(threads)
    venue = Venue(cache_folder() / "peers", threads)
    installed = venue.install(_known(peers))
    for name, python in installed.items():
        typer.echo(f"{name}: {python}", err=True)
    if install_only:
        return
    settings = Settings(_split(tasks), prompts, max_tokens, _numbers(temperatures), repeats, rest)
    command = shlex.join(["benchmarks/peers/run", *sys.argv[1:]])
    record = Record(json, markdown_file, provenance(torch.device("cpu")) | {"command": command})
    for name, dtype in itertools.product(_split(targets), _split(dtypes)):
        compete(name, dtype, settings, venue, installed, record)
    if any(not line.is_reached for run in record.runs for line in same_bytes(run)):
        raise typer.Exit(1)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in _split(text))
    except ValueError as error:
        raise ConfigError(f"temperatures is {text!r}; allowed: numbers with commas between them") from error


def _known(peers: str) -> tuple[str, ...]:
    unknown = [name for name in _split(peers) if name not in RECIPES]
    if unknown:
        raise ConfigError(f"unknown peer {unknown[0]!r}; allowed: {', '.join(RECIPES)}")
    return _split(peers)


if __name__ == "__main__":
    try:
        typer.run(main)
    except PacelineError as error:
        raise SystemExit(f"benchmarks/peers/run: {error}") from error
