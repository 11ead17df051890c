"""What the commands show: tables, the one progress bar, and JSON files. Knows nothing of what they say.

rich is imported when something is drawn; where it is not installed, tables are plain text and there is no bar.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

# What a terminal obeys (C0, DEL, C1), what turns text round for the eye (bidirectional), halves of characters.
_HAZARDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
PATIENCE = 2.0  # seconds before a bar is shown
_WIDTH = 180  # columns of a table that goes to a file


@dataclass
class Table:
    """Cells under a title; the first column is text, the others are figures. Notes stand below."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def printable(text: str) -> str:
    """A stranger's text, a model's say, fit for a terminal: what it would obey is spelt out; lines and tabs stay."""
    return _HAZARDS.sub(lambda found: ascii(found.group())[1:-1], text.replace("\r\n", "\n"))


def show(table: Table) -> None:
    """Print a table and its notes."""
    try:
        _show_rich(table)
    except ImportError:
        _show_plain(table)
    for note in table.notes:
        print(note)
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


class ProgressBar:
    """How far something is, as `progress` shows it."""

    def __init__(self, label: str, total: float | None) -> None:
        self._label, self._total, self._done = label, total, 0.0
        self._started = time.monotonic()
        self._drawn: Progress | None = None

    def __call__(self, count: float = 1.0) -> None:
        """So much more is done."""
        self.update(self._done + count)

    def update(self, done: float, label: str | None = None) -> None:
        """So much is done in all, and perhaps something else is being done now; a full bar goes away."""
        self._done, self._label = done, label or self._label
        if self._total is not None and done >= self._total:
            self.hide()
        elif self._drawn is not None:
            self._drawn.update(self._drawn.task_ids[0], completed=done, description=self._label)
        elif time.monotonic() - self._started > PATIENCE:
            self.draw()

    def draw(self) -> None:
        """Draw it from now on, if anybody sees it."""
        if sys.stderr.isatty():
            with suppress(ImportError):
                self._drawn = _drawn(self._label, self._total, self._done)
                self._drawn.start()  # kept before, so that `hide` finds it if Ctrl-C comes now

    def hide(self) -> None:
        """Take it away."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None


def _drawn(label: str, total: float | None, done: float) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    found = Progress(*columns, console=Console(stderr=True), transient=True)
    found.add_task(label, total=total, completed=done)  # type: ignore[arg-type]  # any number will do
    return found


@contextmanager
def progress(label: str, total: float | None = None) -> Iterator[ProgressBar]:
    """A bar on stderr while a `with` lasts, where that is a terminal and it takes longer than `PATIENCE` seconds.

    Call what it yields with how much more of `total` is done: 1 if nothing is said. Where nobody knows the total it is
    None, and the bar is there at once.
    """
    bar = ProgressBar(label, total)
    try:
        if total is None:
            bar.draw()
        yield bar
    finally:
        bar.hide()


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
