"""`paceline train`: a drafter for a model, trained on one's own prompts, by the clock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from paceline.bundled import DEFAULT_TARGET, block_head_of
from paceline.cli.options import DEVICE
from paceline.console import Table, progress, show
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.training.search import Found
    from paceline.training.session import Order, Outcome, Tell

Result = TypeVar("Result")
_MOST_MINUTES = 7 * 24 * 60.0


def train(
    model: str = typer.Argument(None, help="Bundled name, hub name or folder.", show_default=DEFAULT_TARGET),
    prompts: Path = typer.Option(..., metavar="FILE", help="What users ask: JSON lines or plain text, as for bench."),
    out: Path = typer.Option(Path("drafter"), metavar="FOLDER", help="Where the drafter, its card and its run go."),
    minutes: float = typer.Option(15.0, min=0.1, max=_MOST_MINUTES, help="By the clock, the model's writing included."),
    kind: str = typer.Option("block", metavar="KIND", help="block (a head on the model's states) or draft."),
    steps: int = typer.Option(None, min=1, help="Of training, in place of minutes: one seed, one result."),
    documents: int = typer.Option(
        None, min=8, help="Continuations to train on.", show_default="what a fifth of the minutes brings"
    ),
    seed: int = typer.Option(0, help="Of data, weights and order."),
    choices: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Of the recipe, such as rank=32 or taps=2,4,5; may be repeated."
    ),
    start: str = typer.Option(
        None, metavar="FOLDER", help="A block head to go on from, its shapes kept: a folder, or bundled."
    ),
    device: str = DEVICE,
    search: bool = typer.Option(False, "--search", help="Spend the minutes on finding the protocol, too."),
    fresh: bool = typer.Option(False, "--fresh", help="Begin anew where the folder holds another run."),
) -> None:
    """Train a drafter for MODEL on its own continuations of your prompts: they become faster, and stay the same."""
    with progress("reading PyTorch and transformers"):
        from paceline.training.loop import Budget
        from paceline.training.session import Order

    name = os.path.expanduser(model or DEFAULT_TARGET)
    chosen = {**parse_choices(choices), "seed": seed}
    budget = Budget(minutes, steps)
    order = Order(prompts, out, name, kind, budget, documents, device, chosen, _start(start, name))
    if fresh and order.work.is_dir():
        shutil.rmtree(order.work)
    if search:
        found = _stoppable(order, _search)
        _show_search(found)
        _show(order, found.outcome)
    else:
        _show(order, _stoppable(order, _train))


def _start(given: str | None, model: str) -> Path | None:
    """The folder of a head to go on from."""
    if given != "bundled":
        return None if given is None else Path(given).expanduser()
    folder = block_head_of(model)
    if folder is None:
        raise ConfigError(f"no head is bundled for {model!r}; allowed: the folder of one")
    return folder


def _train(order: Order, tell: Tell) -> Outcome:
    from paceline.training.session import train

    return train(order, tell)


def _search(order: Order, tell: Tell) -> Found:
    from paceline.training.search import find

    return find(order, tell)


def _stoppable(order: Order, job: Callable[[Order, Tell], Result]) -> Result:
    """A job under the progress bar; Ctrl-C says how to go on."""
    try:
        with progress("training", 1.0) as bar:
            return job(order, bar.update)
    except KeyboardInterrupt:
        typer.secho(f"stopped; the same command goes on from {order.work}", err=True)
        raise


def parse_choices(given: list[str]) -> dict[str, Any]:
    """Fields of a recipe by name, each as the type that the recipe has.

    Raises:
        ConfigError: there is no such field, or the value is not of its type.
    """
    from paceline.training.recipe import Recipe, read_choice

    found: dict[str, Any] = {}
    for item in given:
        name, mark, value = item.partition("=")
        if not mark:
            raise ConfigError(f"--set is {item!r}; allowed: NAME=VALUE, such as rank=32")
        found[name] = read_choice(Recipe, name, value)
    return found


def _show_search(found: Found) -> None:
    from paceline.training.search import report

    table = Table("against the usual recipe, predicted tokens a second", ("rung", "setting", "gain", "95 % over texts"))
    table.rows += report(found)
    table.notes.append(f"the best: {found.winner}")
    show(table)


def _show(order: Order, outcome: Outcome) -> None:
    table = Table(
        f"{order.out}: {outcome.steps} steps in {outcome.seconds / 60:.1f} minutes on {outcome.num_tokens} tokens "
        f"({outcome.corpus_bytes / 1e6:.1f} MB)",
        ("held-out text", "tokens a step", "mean over places", "+-"),
    )
    for name, tally in outcome.scores.as_dict().items():
        table.rows.append((name, f"{outcome.walked[name]:.2f}", f"{tally['tau']:.2f}", f"{tally['error']:.2f}"))
    table.notes.append(f"over all: {outcome.walked['all']:.2f} tokens a step of a chain of 7, expected")
    table.notes.append(f"use it: {_usage(order)}")
    show(table)


def _usage(order: Order) -> str:
    model = "" if order.model == DEFAULT_TARGET else f" --model {order.model}"
    ways = {"draft": f"--draft-model {order.out}"}
    return f"paceline generate TEXT{model} {ways.get(order.kind, f'--drafters auto,{order.kind}:path={order.out}')}"
