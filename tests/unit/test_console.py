"""Tables without rich, the bar that waits, and files that cannot be written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, suppress
from pathlib import Path

import pytest

from paceline import console
from paceline.console import Table, progress, show, write_json
from paceline.errors import ConfigError

TABLE = Table("Title [bold]", ("what", "ms"), [("[red]one", "1.00"), ("two, which is longer", "10.25")], ["A note"])


class Terminal(io.StringIO):
    """Where a bar is seen."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_table_says_all_its_cells_with_rich_and_without(
    has_rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not has_rich:
        for name in ("rich", "rich.console", "rich.table"):
            monkeypatch.setitem(sys.modules, name, None)
    show(TABLE)
    said = capsys.readouterr().out
    for words in ("Title [bold]", "what", "[red]one", "1.00", "two, which is longer", "10.25", "A note"):
        assert words in said


def test_what_is_done_quickly_shows_no_bar() -> None:
    with redirect_stderr(Terminal()) as shown, progress("counting", 3) as advance:
        for _ in range(3):
            advance()
    assert not shown.getvalue()


def test_what_takes_long_shows_a_bar_that_goes_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", -1.0)
    with redirect_stderr(Terminal()) as shown, progress("counting [bold]", 5) as advance:
        advance(2)
        assert advance._drawn is not None
        [task] = advance._drawn.tasks
        assert (task.description, task.completed, task.total) == ("counting [bold]", 2, 5)
        advance.update(4, "nearly there")
        assert (task.description, task.completed) == ("nearly there", 4)
        advance()
        assert advance._drawn is None
    assert "counting [bold]" in shown.getvalue()


def test_a_bar_goes_when_its_work_fails() -> None:
    drawn = []
    with redirect_stderr(Terminal()), suppress(KeyError), progress("loading") as bar:
        drawn.append(bar._drawn is not None)  # at once: nobody will say how far it is
        raise KeyError
    assert [*drawn, bar._drawn is not None] == [True, False]


def test_nobody_sees_a_bar_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PATIENCE", -1.0)
    with redirect_stderr(io.StringIO()) as shown, progress("loading"), progress("counting", 3) as advance:
        advance()
    assert not shown.getvalue()


def test_without_rich_there_is_no_bar_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with redirect_stderr(Terminal()) as shown, progress("loading") as advance:
        advance()
    assert not shown.getvalue()


def test_the_console_waits_with_rich_until_something_is_drawn() -> None:
    code = "import sys, paceline.console; print([m for m in sys.modules if m.split('.')[0] == 'rich'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_results_go_to_the_file_that_was_asked_for(tmp_path: Path) -> None:
    write_json(None, {"never": "written"})
    write_json(tmp_path / "found.json", {"figures": [1, 2.5]})
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert json.loads((tmp_path / "found.json").read_text()) == {"figures": [1, 2.5]}
    with pytest.raises(ConfigError, match=r"cannot write .*; allowed: a file that can be written"):
        write_json(tmp_path, {})
