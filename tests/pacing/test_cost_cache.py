"""Costs are learnt while decoding: kept for the next process, distrusted when stale or senseless, and never fatal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paceline.pacing import cost_table, measuring

NAME = "/home/somebody/models/secret-model"


class Timed:
    """A target that takes what it says on a clock of its own, and counts what it was asked to run."""

    row_counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    capacity = 1000

    def __init__(self, seconds: float = 4e-3) -> None:
        self.seconds = seconds
        self.ran: list[int] = []
        self.weight_bytes = 1000
        self.room = 10**6

    def of(self, num_rows: int) -> float:
        return self.seconds * (1 + (num_rows - 1) / 8)

    def dry_run(self, num_rows: int, context: int) -> bool:
        if num_rows > self.room:
            return False
        self.ran.append(num_rows)
        time.sleep(self.of(num_rows))
        return True

    def numerics(self) -> dict:
        return {"path": "timed", "threads": 1}

    def memory(self) -> dict[str, int]:
        return {"weight_bytes": self.weight_bytes, "pool_bytes": 5000}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache; only a sleep makes time pass."""
    now = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "here"))
    return tmp_path / "here" / "costs"


def looked_at(folder: Path) -> Path:
    """The file of a target whose forwards were looked at."""
    cost_table(Timed(), NAME)
    [path] = folder.iterdir()
    return path


def test_where_nothing_is_known_two_forwards_say_what_all_cost() -> None:
    target = Timed()
    costs = cost_table(target, NAME)
    assert target.ran == [1, 8]
    for count in target.row_counts:
        line, curve = target.of(count), target.of(8) * (count / 8) ** 0.5  # arithmetic takes over somewhere
        assert costs.forwards[count].base == pytest.approx(line if count <= 8 else max(line, curve))
        assert costs.forward(count, 0) == pytest.approx(costs.forwards[count].base)
    a_position = 5000 / 1000 / 1000  # of the weights' bytes
    assert costs.forwards[1].slope == pytest.approx(target.seconds * a_position)


def test_a_second_look_that_does_not_fit_is_done_without() -> None:
    target = Timed()
    target.room = 3
    costs = cost_table(target, NAME)
    assert target.ran == [1]
    assert costs.forward(32, 0) > costs.forward(1, 0)


def test_what_was_learnt_is_kept_and_runs_nothing_the_next_time(folder: Path) -> None:
    costs = cost_table(Timed(), NAME)
    for _ in range(4):
        for rows in (1, 4):
            costs.learn(rows, 0, 9e-3 * rows)
    target = Timed()
    known = cost_table(target, NAME)
    assert target.ran == []
    assert known.forward(1, 0) == pytest.approx(9e-3, rel=0.01)
    assert known.forward(4, 0) == pytest.approx(36e-3, rel=0.01)
    assert 9e-3 < known.forward(2, 0) < 36e-3 < known.forward(8, 0)  # a line through what is known, and on


def test_it_is_kept_now_and_then(folder: Path) -> None:
    path = looked_at(folder)
    costs = cost_table(Timed(), NAME)
    kept = []
    for _ in range(40):
        path.unlink(missing_ok=True)
        costs.learn(1, 0, 5e-3)
        kept.append(path.exists())
    assert [number for number, is_kept in enumerate(kept, 1) if is_kept] == [8, 16, 32]


def test_a_kept_table_is_scaled_by_the_first_forwards_of_a_slower_day(folder: Path) -> None:
    looked_at(folder)
    costs = cost_table(Timed(), NAME)
    costs.learn(1, 0, 3 * Timed().of(1))
    for count in (1, 8):
        assert costs.forward(count, 0) == pytest.approx(3 * Timed().of(count), rel=0.05)


def test_what_is_older_than_thirty_days_is_looked_at_again(folder: Path) -> None:
    path, day = looked_at(folder), 86400
    for age, is_trusted in ((29, True), (31, False)):
        os.utime(path, (time.time() - age * day,) * 2)
        target = Timed()
        cost_table(target, NAME)
        assert (target.ran == []) is is_trusted
    assert time.time() - path.stat().st_mtime < day


def test_a_table_without_the_fewest_rows_is_looked_at_again(folder: Path) -> None:
    path = looked_at(folder)
    says = json.loads(path.read_text())
    del says["1"]
    path.write_text(json.dumps(says))
    target = Timed()
    cost_table(target, NAME)
    assert target.ran == [1, 8]


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
def test_what_makes_no_sense_is_looked_at_again_and_written_over(folder: Path, damage: str) -> None:
    path = looked_at(folder)
    path.write_bytes(DAMAGE[damage])
    target = Timed()
    costs = cost_table(target, NAME)
    assert target.ran == [1, 8]
    assert costs.forward(1, 0) == pytest.approx(target.seconds)
    cost_table(target, NAME)
    assert target.ran == [1, 8]


def test_a_folder_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("")
    costs = cost_table(Timed(), NAME)
    for _ in range(16):
        costs.learn(1, 0, 5e-3)
    assert costs.forward(1, 0) == pytest.approx(5e-3, rel=0.05)


def test_file_names_and_files_say_nothing_of_the_models_path(folder: Path) -> None:
    path = looked_at(folder)
    for word in ("secret", "somebody", "home"):
        assert word not in path.name + path.read_text()


def test_another_model_machine_or_release_has_its_own_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = looked_at(folder)
    larger = Timed()
    larger.weight_bytes += 1
    cost_table(larger, NAME)
    cost_table(Timed(), "another")
    monkeypatch.setattr("paceline.pacing.measuring.__version__", "0.0.0")
    cost_table(Timed(), NAME)
    assert len(list(folder.iterdir())) == 4
    assert path in folder.iterdir()


def test_two_processes_at_once_leave_one_whole_file(folder: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from pacing.test_cost_cache import NAME, Timed
from paceline.pacing import cost_table
for _ in range(5):
    target = Timed(5e-5)
    target.weight_bytes = 7
    costs = cost_table(target, NAME)
    for _ in range(32):
        costs.learn(1, 0, 5e-5)
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent.parent)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    [path] = folder.iterdir()
    assert "1" in json.loads(path.read_text())
