"""Snapshots are whole, or not there: after a kill at any moment, on a full disk, and when bits have flipped."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.learning.snapshots import KEPT, Snapshot, SnapshotStore

CALLS = ("open", "write", "fsync", "replace", "unlink")  # of `os`: all that a save does to the disk


class Killed(BaseException):
    """Stands for the end of the process: what the disk holds when it is raised is all that there is."""


def snapshot(number: int) -> Snapshot:
    rows = np.random.default_rng(number).normal(size=(5, 3)).astype(np.float32)
    return Snapshot({"rows": rows, "ids": np.arange(5)}, belief=number / 100, attempt=number)


def attempts(folder: Path) -> list[int]:
    """The numbers of the snapshots that are read, each of which has to be as it was saved."""
    found = SnapshotStore(folder).load()
    for one in found:
        wanted = snapshot(one.attempt)
        assert one.belief == wanted.belief
        assert all(np.array_equal(one.weights[name], wanted.weights[name]) for name in wanted.weights)
    return [one.attempt for one in found]


def trip_at(monkeypatch: pytest.MonkeyPatch, place: int, what: Callable[[], None]) -> list[str]:
    """Have the call of that number fail, a write after half of its bytes; the names of the calls so far."""
    seen: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) - 1 == place:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                what()
            return real(*args, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, watched(name))
    return seen


def test_the_last_three_are_kept_newest_first(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "here")
    assert store.load() == []
    for number in range(1, 6):
        assert store.save(snapshot(number))
    assert attempts(tmp_path / "here") == [5, 4, 3]
    assert len(list((tmp_path / "here").iterdir())) == KEPT + 1
    assert store.save(snapshot(3))  # one that is there already becomes the newest
    assert attempts(tmp_path / "here") == [3, 5, 4]


def test_a_kill_at_any_moment_leaves_what_was_or_what_is_to_be(tmp_path: Path) -> None:
    folder, left = tmp_path / "here", tmp_path / "left"
    for number in range(1, 5):
        SnapshotStore(folder).save(snapshot(number))
    before, found, place = tmp_path / "before", [], 0
    shutil.copytree(folder, before)
    while True:

        def kill() -> None:
            shutil.rmtree(left, ignore_errors=True)
            with pytest.MonkeyPatch.context() as plain:
                for name, call in REAL.items():
                    plain.setattr(os, name, call)
                shutil.copytree(folder, left)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            calls = trip_at(patch, place, kill)
            try:
                SnapshotStore(folder).save(snapshot(9))
                break
            except Killed:
                pass
        found.append(attempts(left))
        assert SnapshotStore(left).save(snapshot(10))  # the next process goes on from there
        assert attempts(left)[0] == 10
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        place += 1
    assert set(calls) == set(CALLS)
    assert [4, 3, 2] in found
    assert [9, 4, 3] in found
    assert all(numbers in ([4, 3, 2], [9, 4, 3]) for numbers in found), found


REAL = {name: getattr(os, name) for name in CALLS}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_more_is_survived(tmp_path: Path, code: int) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    for place in range(9):
        folder = tmp_path / str(place)
        store = SnapshotStore(folder)
        store.save(snapshot(1))
        with pytest.MonkeyPatch.context() as patch:
            calls = trip_at(patch, place, fail)
            with pytest.warns(RuntimeWarning, match="could not be kept in"):
                is_saved = store.save(snapshot(2))
        assert calls
        assert not is_saved
        assert attempts(folder) in ([1], [2, 1])
        assert not list(folder.glob("*.tmp"))
        assert store.save(snapshot(3))  # there is room again
        assert attempts(folder)[0] == 3


def test_a_store_that_cannot_be_made_warns_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = SnapshotStore(tmp_path / "file" / "here")
    with pytest.warns(RuntimeWarning, match="could not be kept"):
        assert not store.save(snapshot(1))
    assert not store.save(snapshot(1))
    assert store.load() == []


def test_flipped_bits_are_passed_over(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for number in (1, 2):
        store.save(snapshot(number))
    newest = max(tmp_path.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    data[-3] ^= 4
    newest.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="was passed over"):
        assert [one.attempt for one in store.load()] == [1]
    newest.unlink()
    with pytest.warns(RuntimeWarning, match="was passed over"):
        assert [one.attempt for one in store.load()] == [1]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"snapshots": [{"file": "../x"}], "sha256": ""}', "[" * 100_000, '{"a": NaN}']
)
def test_a_manifest_that_was_not_written_by_us_is_nothing(tmp_path: Path, text: str) -> None:
    store = SnapshotStore(tmp_path)
    store.save(snapshot(1))
    (tmp_path / "manifest.json").write_text(text)
    assert store.load() == []
    assert store.save(snapshot(2))
    assert attempts(tmp_path) == [2]


def test_tenants_and_heads_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    SnapshotStore.of("head", "ann").save(snapshot(1))
    assert [SnapshotStore.of(*one).load() for one in (("head", "bob"), ("other", "ann"))] == [[], []]
    assert [one.attempt for one in SnapshotStore.of("head", "ann").load()] == [1]
    assert not [path for path in tmp_path.rglob("*") if "ann" in path.name]
    for number in range(70):
        (tmp_path / "learning" / str(number)).mkdir()
    SnapshotStore.of("head", "bob").save(snapshot(2))
    assert len(list((tmp_path / "learning").iterdir())) == 64
    assert SnapshotStore.of("head", "bob").load()


def test_a_real_kill_loses_nothing_that_was_said_to_be_kept(tmp_path: Path) -> None:
    code = (
        "import sys; from learning.test_snapshots import *\n"
        "for n in range(1, 10**6): SnapshotStore(Path(sys.argv[1])).save(snapshot(n)) and print(n, flush=True)"
    )
    root = str(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        said = [1, *(int(line) for line in process.stdout.read().split())]
    assert attempts(tmp_path)[0] in (said[-1], said[-1] + 1)
