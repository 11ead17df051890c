"""The file of a store: whole or not at all, shared by processes, refused when foreign, set aside when damaged."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paceline import ConfigError
from paceline.drafters._store import StoreFile, Texts, Vocabulary

WORDS = Vocabulary(100, "abc")
Pairs = list[tuple[list[int], int]]


def texts(pairs: Pairs) -> Texts:
    return Texts.of([(np.array(text, np.int32), owner) for text, owner in pairs])


def opened(path: Path, vocabulary: Vocabulary = WORDS) -> tuple[StoreFile, Pairs]:
    file = StoreFile(path, vocabulary)
    return file, [(text.tolist(), owner) for text, owner in file.open()]


def held(path: Path) -> Pairs:
    return opened(path)[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.npz"


def run(python: str, code: str, *arguments: object) -> subprocess.Popen[bytes]:
    source = "import sys\nimport numpy as np\nfrom paceline.drafters._store import *\n" + textwrap.dedent(code)
    return subprocess.Popen([python, "-c", source, *map(str, arguments)])


@given(st.lists(st.tuples(st.lists(st.integers(0, 99), min_size=1, max_size=9), st.integers(1, 3)), max_size=6))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_saved_is_loaded(path: Path, pairs: Pairs) -> None:
    path.unlink(missing_ok=True)
    file, nothing = opened(path)
    assert not nothing
    file.save(texts(pairs), 1000)
    assert held(path) == pairs
    assert not file.troubles


def test_every_writer_keeps_what_others_have_saved_and_the_newest_stay_within_the_bound(path: Path) -> None:
    (first, _), (second, _) = opened(path), opened(path)
    assert first.salt == second.salt
    first.save(texts([([1, 2, 3], 1)]), 100)
    second.save(texts([([4, 5, 6], 2)]), 100)
    first.save(texts([([1, 2, 3], 1), ([7, 8, 9], 1)]), 100)
    assert held(path) == [([4, 5, 6], 2), ([1, 2, 3], 1), ([7, 8, 9], 1)]
    first.save(texts([([9, 9, 9], 1)]), 8)
    assert held(path) == [([7, 8, 9], 1), ([9, 9, 9], 1)]


def test_two_processes_at_once_lose_nothing(python: str, path: Path) -> None:
    opened(path)
    code = """
        file, mine = StoreFile(sys.argv[1], Vocabulary(100, "abc")), []
        file.open()
        for i in range(10):
            mine.append((np.array([int(sys.argv[2]), i, 7], np.int32), 1))
            file.save(Texts.of(mine), 10000)
        assert not file.troubles
    """
    writers = [run(python, code, path, who) for who in (1, 2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert sorted(text for text, _ in held(path)) == [[who, i, 7] for who in (1, 2) for i in range(10)]


def test_a_process_killed_while_saving_leaves_a_whole_file_and_no_lock(python: str, path: Path) -> None:
    opened(path)
    code = """
        file = StoreFile(sys.argv[1], Vocabulary(100, "abc"))
        file.open()
        while True:
            file.save(Texts.of([(np.full(400_000, 7, np.int32), 1)]), 10**6)
    """
    for _ in range(3):
        temporary = Path(f"{path}.tmp")
        temporary.unlink(missing_ok=True)
        writer = run(python, code, path)
        deadline = time.monotonic() + 30
        while not temporary.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        assert temporary.exists()
        writer.kill()
        writer.wait()
    file, found = opened(path)
    assert found in ([], [([7] * 400_000, 1)])
    assert not file.troubles


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_save_that_fails_says_so_and_the_old_file_stays(path: Path, monkeypatch, broken: str) -> None:
    file, _ = opened(path)
    file.save(texts([([1, 2, 3], 1)]), 100)

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, no_space)
        file.save(texts([([4, 5, 6], 1)]), 100)
    assert "nothing was saved" in file.troubles[0]
    assert "No space left" in file.troubles[0]
    assert held(path) == [([1, 2, 3], 1)]
    assert sorted(p.name for p in path.parent.iterdir()) == ["store.npz", "store.npz.lock"]


def bytes_of(path: Path) -> bytes:
    file, _ = opened(path)
    file.save(texts([([1, 2, 3], 1)]), 100)
    return path.read_bytes()


def bombed(good: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokens.npy", bytes(10**6))
    return path.read_bytes()


def with_array(good: bytes, path: Path, **changed: np.ndarray) -> bytes:
    path.write_bytes(good)
    with np.load(path) as archive:
        arrays = {**archive, **changed}
    np.savez(path, **arrays)
    return path.read_bytes()


DAMAGE = {
    "empty": lambda good, path: b"",
    "text": lambda good, path: b"hello",
    "truncated": lambda good, path: good[:-40],
    "half": lambda good, path: good[: len(good) // 2],
    "flipped": lambda good, path: good.replace(b"\1\0\0\0\2\0\0\0\3", b"\1\0\0\0\2\0\0\0\4"),
    "bomb": bombed,
    "pickled": lambda good, path: with_array(good, path, tokens=np.array([{}], object)),
    "tokens": lambda good, path: with_array(good, path, tokens=np.array([1, 2, 100], np.int32)),
    "negative": lambda good, path: with_array(good, path, tokens=np.array([1, 2, -1], np.int32)),
    "lengths": lambda good, path: with_array(good, path, lengths=np.array([4], np.int32)),
    "owners": lambda good, path: with_array(good, path, owners=np.array([0], np.int64)),
    "kinds": lambda good, path: with_array(good, path, tokens=np.array([1.0, 2.0, 3.0])),
    "salt": lambda good, path: with_array(good, path, salt=np.zeros(3, np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_set_aside_and_begun_anew(path: Path, damage: str) -> None:
    bad = DAMAGE[damage](bytes_of(path), path)
    path.write_bytes(bad)
    file, found = opened(path)
    assert not found
    assert "damaged" in file.troubles[0]
    assert "store.npz.corrupt" in file.troubles[0]
    assert Path(f"{path}.corrupt").read_bytes() == bad
    file.save(texts([([4, 5, 6], 1)]), 100)
    assert held(path) == [([4, 5, 6], 1)]


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_byte_crashes_it(path: Path, data) -> None:
    path.unlink(missing_ok=True)
    garbled = bytearray(bytes_of(path))
    for _ in range(data.draw(st.integers(1, 3))):
        garbled[data.draw(st.integers(0, len(garbled) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(garbled)
    assert held(path) in ([], [([1, 2, 3], 1)])


@pytest.mark.parametrize("other", [Vocabulary(101, "abc"), Vocabulary(100, "xyz")])
def test_another_vocabulary_is_refused_by_name_and_the_file_is_not_touched(path: Path, other: Vocabulary) -> None:
    good = bytes_of(path)
    with pytest.raises(ConfigError, match=f"100 entries with fingerprint abc; allowed: the model's, {other.size} e"):
        opened(path, other)
    assert path.read_bytes() == good


def test_without_a_tokenizer_only_the_size_is_compared_and_the_known_fingerprint_is_kept(path: Path) -> None:
    bytes_of(path)
    file, _ = opened(path, Vocabulary(100))
    file.save(texts([]), 100)
    with pytest.raises(ConfigError, match="fingerprint abc"):
        opened(path, Vocabulary(100, "xyz"))


def test_a_newer_format_is_refused_and_not_set_aside(path: Path) -> None:
    good = bytes_of(path)
    path.write_bytes(with_array(good, path, version=np.array(2)))
    with pytest.raises(ConfigError, match="of format 2; allowed: up to 1"):
        opened(path)
    assert path.exists()


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used: .*; allowed: a writable file"):
        opened(tmp_path / "no such folder" / "store.npz")


def test_a_file_replaced_by_another_store_is_not_written_over(path: Path) -> None:
    file, _ = opened(path)
    path.unlink()
    other, _ = opened(path)
    other.save(texts([([1, 2, 3], 1)]), 100)
    file.save(texts([([4, 5, 6], 1)]), 100)
    assert "replaced by another" in file.troubles[0]
    assert held(path) == [([1, 2, 3], 1)]
