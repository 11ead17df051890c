"""Costs are measured once on a machine: remembered, distrusted when stale or contradicted, and never fatal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paceline.pacing import forward_costs
from paceline.pacing.measuring import _FAR, _NEAR, measure, quickest

NAME = "/home/somebody/models/secret-model"


class Timed:
    """A target that sleeps for each row, and counts what it was asked to run."""

    row_counts: tuple[int, ...] = (1, 2, 3, 4)

    def __init__(self, seconds: float = 4e-4) -> None:
        self.seconds = seconds
        self.contexts: list[int] = []
        self.weight_bytes = 1000

    def dry_run(self, num_rows: int, context: int) -> bool:
        self.contexts.append(context)
        time.sleep(self.seconds * (1 + num_rows / 8))
        return True

    @property
    def is_measured(self) -> bool:
        """Whether all was run that measuring runs; a look at whether costs still hold stays behind short contexts."""
        return _FAR in self.contexts

    def numerics(self) -> dict:
        return {"path": "timed", "threads": 1}

    def memory(self) -> dict[str, int]:
        return {"weight_bytes": self.weight_bytes}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "here"))
    return tmp_path / "here" / "costs"


def believe(folder: Path, target: Timed, factor: float = 1.0) -> Path:
    """A cache file that says what a target would have been measured to take, times a factor."""
    forward_costs(target, NAME)
    [path] = folder.iterdir()
    says = {rows: [factor * target.seconds * (1 + rows / 8), 0.0] for rows in target.row_counts}
    path.write_text(json.dumps(says))
    return path


def remembered(path: Path) -> bool:
    """Whether costs are taken from the file; timings of sleeps are checked against what this machine makes of them."""
    before = path.read_text()
    target = Timed()
    costs = forward_costs(target, NAME)
    assert list(costs) == list(target.row_counts)
    assert path.exists()
    if not target.is_measured:
        assert path.read_text() == before
        assert {str(rows): [cost.base, cost.slope] for rows, cost in costs.items()} == json.loads(before)
        assert set(target.contexts) == {_NEAR}  # all counts are run, for what is prepared at first use
        assert len(target.contexts) >= len(target.row_counts)
    return not target.is_measured


def settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a target's costs on a clock that is not this machine's: only a sleep makes time pass."""
    now = [0.0]
    monkeypatch.setattr("paceline.pacing.measuring.measure", lambda target: measure(target, lambda: now[0]))
    monkeypatch.setattr("paceline.pacing.measuring.quickest", lambda *args: quickest(*args[:4], lambda: now[0]))
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return believe(folder, Timed())


def test_costs_are_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered(settled(folder, monkeypatch))


def test_what_is_older_than_thirty_days_is_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    day = 86400
    os.utime(path, (time.time() - 29 * day,) * 2)
    assert remembered(path)
    os.utime(path, (time.time() - 31 * day,) * 2)
    assert not remembered(path)
    assert time.time() - path.stat().st_mtime < day
    assert remembered(path)


@pytest.mark.parametrize(("factor", "holds"), [(1.4, True), (0.72, True), (1.6, False), (0.6, False), (0.0, False)])
def test_what_a_forward_contradicts_is_measured_again(folder, monkeypatch, factor: float, holds: bool) -> None:
    path = settled(folder, monkeypatch)
    believe(folder, Timed(), factor)
    assert remembered(path) is holds


def test_one_row_count_that_is_contradicted_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    says = json.loads(path.read_text())
    says["3"][0] *= 2
    path.write_text(json.dumps(says))
    assert not remembered(path)


def test_a_row_count_that_does_not_fit_contradicts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    dry_run = Timed.dry_run
    monkeypatch.setattr(Timed, "dry_run", lambda target, rows, context: rows < 3 and dry_run(target, rows, context))
    target = Timed()
    forward_costs(target, NAME)
    assert not target.is_measured
    assert path.exists()


def test_other_row_counts_are_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    says = json.loads(path.read_text())
    del says["3"]
    path.write_text(json.dumps(says))
    assert not remembered(path)


DAMAGE = {
    "empty": b"",
    "no JSON": b"1: 2",
    "no text": b"\xff\xfe\x00",
    "half": b'{"1": [0.001, 0.0], "2": [0.0',
    "a list": b"[1, 2, 3]",
    "a number": b"7",
    "nothing": b"{}",
    "null": b"null",
    "other keys": b'{"one": [0.001, 0.0]}',
    "other values": b'{"1": 0.1, "2": 0.1, "3": 0.1, "4": 0.1}',
    "words": b'{"1": ["a", "b"], "2": [1, 1], "3": [1, 1], "4": [1, 1]}',
    "one number": b'{"1": [0.1], "2": [0.1], "3": [0.1], "4": [0.1]}',
    "three numbers": b'{"1": [0.1, 0, 0], "2": [0.1, 0, 0], "3": [0.1, 0, 0], "4": [0.1, 0, 0]}',
    "not a number": b'{"1": [NaN, 0], "2": [NaN, 0], "3": [NaN, 0], "4": [NaN, 0]}',
    "negative": b'{"1": [-1, 0], "2": [0, 0], "3": [0, 0], "4": [0, 0]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_read_is_measured_again_and_written_over(folder, monkeypatch, damage: str) -> None:
    path = settled(folder, monkeypatch)
    path.write_bytes(DAMAGE[damage])
    target = Timed()
    costs = forward_costs(target, NAME)
    assert target.is_measured
    assert costs[1].at(0) == pytest.approx(target.seconds * 1.125)
    assert remembered(path)


@pytest.mark.parametrize("what", ["a file in the way", "a folder in its place"])
def test_a_folder_that_cannot_be_written_is_no_error(folder, monkeypatch, what: str) -> None:
    path = settled(folder, monkeypatch)
    path.unlink()
    if what == "a file in the way":
        folder.rmdir()
        folder.write_text("")
    else:
        path.mkdir()
    costs = forward_costs(Timed(), NAME)
    assert list(costs) == list(Timed.row_counts)
    if folder.is_dir():
        assert list(folder.iterdir()) == [path], "nothing half-written is left"


def test_file_names_and_files_say_nothing_of_the_models_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    assert path.suffix == ".json"
    assert len(path.stem) == 32
    assert set(path.stem) <= set("0123456789abcdef")
    for word in ("secret", "somebody", "home"):
        assert word not in path.name + path.read_text()


def test_another_model_machine_or_release_has_its_own_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settled(folder, monkeypatch)
    larger = Timed()
    larger.weight_bytes += 1
    forward_costs(larger, NAME)
    forward_costs(Timed(), "another")
    monkeypatch.setattr("paceline.pacing.measuring.__version__", "0.0.0")
    forward_costs(Timed(), NAME)
    assert len(list(folder.iterdir())) == 4
    assert path in folder.iterdir()


def test_two_processes_at_once_leave_one_whole_file(folder: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pacing.test_cost_cache import NAME, Timed
from paceline.pacing import forward_costs
for _ in range(5):
    target = Timed(5e-5)
    target.weight_bytes = 7
    assert list(forward_costs(target, NAME)) == [1, 2, 3, 4]
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent.parent)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    [path] = folder.iterdir()
    assert list(json.loads(path.read_text())) == ["1", "2", "3", "4"]
