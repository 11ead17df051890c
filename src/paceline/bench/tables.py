"""Tables and progress bars by rich where it is installed, in plain text where it is not; and JSON files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError

_WIDTH = 180  # columns of a table that goes to a file


@dataclass
class Table:
    """Cells under a title; the first column is text, the others are figures. Notes stand below."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reach:
    """One line to reach: what, the figure measured, and whether it is good enough."""

    text: str
    figure: str
    is_reached: bool

    def __str__(self) -> str:
        return f"{'reached' if self.is_reached else 'not reached'}: {self.text}: {self.figure}"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"text": self.text, "figure": self.figure, "reached": self.is_reached}


def show(table: Table, reach: Sequence[Reach] = ()) -> None:
    """Print a table, its notes, and the lines to reach."""
    try:
        _show_rich(table)
    except ImportError:
        _show_plain(table)
    for note in table.notes:
        print(note)
    for line in reach:
        print(f"Reach, {line}")
    print(flush=True)


def _show_rich(table: Table) -> None:
    import rich.console
    import rich.table
    from rich.text import Text  # a name with brackets is no markup

    is_terminal = sys.stdout.isatty()
    console = rich.console.Console(width=None if is_terminal else _WIDTH, highlight=False)
    grid = rich.table.Table(title=Text(table.title), title_justify="left")
    for index, column in enumerate(table.columns):
        grid.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def _show_plain(table: Table) -> None:
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    print(table.title)
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells[1:]]))


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; call what it yields once per unit of `total`. None: nobody knows how long."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        print(f"{label} ...", file=sys.stderr, flush=True)
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write results to a file, if one was asked for.

    Raises:
        ConfigError: the file cannot be written.
    """
    if path is not None:
        try:
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {str(path)!r} ({error}); allowed: a file that can be written") from error
