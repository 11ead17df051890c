"""What is kept between processes: found again, whole or not at all, and never fatal."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache import cache_file, cache_folder, cache_key, read_json, write_json

WHAT = {"name": "/home/somebody/models/secret-model", "threads": 2}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "here"))
    return tmp_path / "here"


def test_the_folder_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("PACELINE_CACHE", "")
    assert cache_folder() == tmp_path / "xdg" / "paceline"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "paceline"


def test_tests_keep_out_of_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    code = "from paceline.cache import cache_folder; print(cache_folder())"
    environment = {key: value for key, value in os.environ.items() if key != "PACELINE_CACHE"}
    users = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not str(cache_folder()).startswith(users.stdout.strip())
    assert os.environ["PACELINE_CACHE"].startswith(tempfile.gettempdir())


@given(JSON)
def test_what_was_written_is_read(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "down" / "entry.json"
        write_json(path, value)
        assert read_json(path) == value
        assert list(path.parent.iterdir()) == [path], "nothing but the file is left"


def test_what_is_too_old_is_not_there() -> None:
    path = cache_file("things", WHAT)
    write_json(path, 1)
    os.utime(path, (time.time() - 90,) * 2)
    assert read_json(path, 100) == read_json(path) == 1
    assert read_json(path, 80) is None


DAMAGE = {"empty": b"", "no JSON": b"1: 2", "no text": b"\xff\xfe\x00", "half": b'{"1": [0.0', "deep": b"[" * 100_000}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_read_is_not_there_and_is_written_over(damage: str) -> None:
    path = cache_file("things", WHAT)
    write_json(path, [1])
    path.write_bytes(DAMAGE[damage])
    assert read_json(path) is None
    write_json(path, [2])
    assert read_json(path) == [2]


def test_nothing_and_a_folder_are_not_there(folder: Path) -> None:
    assert read_json(cache_file("things", WHAT)) is None
    cache_file("things", WHAT).mkdir(parents=True)
    assert read_json(cache_file("things", WHAT)) is None


def test_a_file_or_a_folder_in_the_way_is_no_error(folder: Path) -> None:
    path = cache_file("things", WHAT)
    path.mkdir(parents=True)
    write_json(path, 1)
    assert list(path.parent.iterdir()) == [path], "nothing half-written is left"
    path.rmdir()
    path.parent.rmdir()
    path.parent.write_text("")
    write_json(path, 1)
    assert read_json(path) is None


def test_a_full_disk_keeps_what_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache_file("things", WHAT)
    write_json(path, 1)

    def half(file: Path, text: str, encoding: str) -> int:
        file.write_bytes(text.encode(encoding)[:1])
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    write_json(path, [2, 3])
    assert read_json(path) == 1
    assert list(path.parent.iterdir()) == [path], "nothing half-written is left"


def test_file_names_say_nothing_of_what_they_are_about() -> None:
    path = cache_file("things", WHAT)
    assert path.suffix == ".json"
    assert len(path.stem) == 32
    assert set(path.stem) <= set("0123456789abcdef")


def test_keys_tell_apart_what_differs_and_not_what_is_only_in_another_order() -> None:
    assert cache_key(WHAT) == cache_key(dict(reversed(WHAT.items())))
    others = [WHAT | {"threads": 3}, WHAT | {"name": "x"}, WHAT | {"more": None}, {"name": WHAT["name"]}]
    assert len({cache_key(what) for what in (WHAT, *others)}) == 5
