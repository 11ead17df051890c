"""A damaged file, wherever it is damaged, is one error of our own, and nothing large is ever allocated.

More mutations than in a run of the suite: PACELINE_MUTATIONS=100000 pytest tests/formats/gguf/test_bad_files.py
"""

from __future__ import annotations

import os
import random
import resource
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from formats.gguf.files import ARRAY, F32, STRING, U32, Entry, File, pair, text, tiny_llama
from formats.mutations.damage import mutated
from paceline.errors import ModelError
from paceline.formats.gguf import is_gguf, open_gguf
from paceline.formats.gguf.header import read_header

MUTATIONS = int(os.environ.get("PACELINE_MUTATIONS", "3000"))
MOST_BYTES = 1 << 18  # of Python's own objects, for a file of 4 kB


def read_whole(path: Path) -> None:
    """All that can be asked of a file."""
    found = open_gguf(path)
    assert found.config is not None
    for weight in found.weights():
        assert weight.value is not None
    found.tokenizer()


def read_config(path: Path) -> None:
    assert open_gguf(path).config is not None


def refused(path: Path, raw: bytes, words: str) -> None:
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=words):
        read_whole(path)


def test_the_file_that_is_damaged_below_is_right(tmp_path: Path) -> None:
    read_whole(tiny_llama().write(tmp_path / "model.gguf"))


def test_a_file_that_ends_too_soon(tmp_path: Path) -> None:
    """At every byte of the header, and of what follows at every tensor's begin and end."""
    file = tiny_llama()
    raw, path = file.to_bytes(), tmp_path / "model.gguf"
    data = len(raw) - sum(len(e.data) + -len(e.data) % 32 for e in file.entries)
    for size in range(data):
        with pytest.raises(ModelError):
            read_header(memoryview(raw[:size]), "model.gguf")
    at = data
    for entry in file.entries:
        for size in (at, at + 1, at + len(entry.data) - 1):
            refused(path, raw[:size], "ends at byte .*; allowed: .*, the file's size")
        at += len(entry.data) + -len(entry.data) % 32
    refused(path, b"", "has 0 bytes; allowed: a GGUF file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: setattr(f, "magic", b"GGML"), "begins with b'GGML'; allowed: b'GGUF'"),
        (lambda f: setattr(f, "version", 1), "is of version 1; allowed: little-endian, version 2 or 3"),
        (lambda f: setattr(f, "version", 3 << 24), "is big-endian; allowed: little-endian"),
        (lambda f: setattr(f, "num_tensors", 2**63), "the number of tensors is 9223372036854775808; allowed: at most"),
        (lambda f: setattr(f, "num_pairs", 2**63), "the number of keys is 9223372036854775808; allowed: at most"),
        (lambda f: setattr(f, "num_pairs", 2**16 + 1), "the number of keys is 65537; allowed: at most"),
        (lambda f: f.pairs.append(f.pairs[0]), "the key 'general.architecture' occurs twice"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<I", 13)), "a is of type 13; allowed: 0 to 12"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<IIQ", 9, 9, 1)), "the items of a are of type 9"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<IIQ", 9, 4, 2**63)), "number of items of 'a' is 92233720"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<IIQ", 9, 8, 10**6)), "number of items of 'a' is 1000000"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<IQ", 8, 2**64 - 1)), "number of bytes of a is 1844674407"),
        (lambda f: f.pairs.append(text("a") + struct.pack("<IB", 7, 2)), "a has the bool 2; allowed: 0, 1"),
        (lambda f: f.pairs.append(text(b"\xff") + struct.pack("<IB", 7, 1)), r"a key is b'\\xff'; allowed: UTF-8"),
        (lambda f: f.pairs.append(pair("general.alignment", U32, 24)), "alignment is 24; allowed: a power of two"),
        (lambda f: f.pairs.append(pair("general.alignment", U32, 0)), "alignment is 0; allowed: an integer from 8"),
        (lambda f: f.pairs.append(pair("general.alignment", F32, 32.0)), "alignment is 32.0; allowed: an integer"),
        (lambda f: setattr(f.entries[3], "kind", 99), "is of type 99: there is no such type; allowed: F32, F16"),
        (lambda f: setattr(f.entries[3], "kind", 4), "is of type 4: Q4_2 and Q4_3 were removed from ggml"),
        (lambda f: setattr(f.entries[3], "kind", 36), "is of type 36: IQ4_NL interleaved in files was removed"),
        (lambda f: setattr(f.entries[3], "kind", 26), "is of type 26: integers are no weights"),
        (lambda f: setattr(f.entries[3], "kind", 8), "has rows of 8 weights; allowed for Q8_0: multiples of 32"),
        (lambda f: setattr(f.entries[3], "dims", (8, 0)), r"is \[8, 0\]; allowed: dimensions of 1 to"),
        (lambda f: setattr(f.entries[3], "dims", (2**63, 2)), "allowed: dimensions of 1 to 2147483647"),
        (lambda f: setattr(f.entries[3], "dims", (2**31 - 1,) * 4), "ends at byte .*; allowed: .*, the file's size"),
        (lambda f: setattr(f.entries[3], "dims", ()), "has 0 dimensions; allowed: 1 to 4"),
        (lambda f: setattr(f.entries[3], "dims", (1,) * 5), "has 5 dimensions; allowed: 1 to 4"),
        (lambda f: setattr(f.entries[3], "offset", 2**63), "ends at byte"),
        (lambda f: setattr(f.entries[3], "offset", 40), "begins at offset 40; allowed: multiples of 32"),
        (lambda f: setattr(f.entries[3], "offset", 0), r"'token_embd.weight' and 'blk.0.attn_q.weight' overlap"),
        (lambda f: f.entries.append(f.entries[3]), "the tensor 'blk.0.attn_q.weight' occurs twice"),
        (
            lambda f: setattr(f.entries[3], "name", "x" * 300),
            "number of bytes of a tensor's name is 300; allowed: at most 255",
        ),
    ],
)
def test_one_thing_is_wrong(change: Callable[[File], None], words: str, tmp_path: Path) -> None:
    file = tiny_llama()
    change(file)
    refused(tmp_path / "model.gguf", file.to_bytes(), words)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*; allowed: a GGUF file"):
        open_gguf(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match="there is no file"):
        open_gguf(tmp_path)
    assert not is_gguf(tmp_path)
    assert is_gguf(tiny_llama().write(tmp_path / "model.gguf"))


def shards(folder: Path, count: int = 3, total: int = 11) -> list[Path]:
    file, paths = tiny_llama(), []
    for number in range(count):
        own = [pair("split.no", 2, number), pair("split.count", 2, count), pair("split.tensors.count", 5, total)]
        part = File([*(file.pairs if number == 0 else []), *own], file.entries[number::count])
        paths.append(part.write(folder / f"tiny-{number + 1:05d}-of-{count:05d}.gguf"))
    return paths


def test_shards_are_read_as_one_whichever_is_named(tmp_path: Path) -> None:
    whole = {w.name: w.value for w in open_gguf(tiny_llama().write(tmp_path / "model.gguf")).weights()}
    paths = shards(tmp_path)
    for path in paths:
        found = open_gguf(path)
        assert found.num_bytes == sum(p.stat().st_size for p in paths)
        parts = {w.name: w.value for w in found.weights()}
        assert parts.keys() == whole.keys()
        assert all(torch.equal(parts[name], whole[name]) for name in whole)  # type: ignore[arg-type]


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    first, second, third = shards(tmp_path)
    second.rename(tmp_path / "kept")
    with pytest.raises(ModelError, match=r"one of 3 shards, and tiny-00002-of-00003.gguf is missing"):
        open_gguf(first)
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelError, match="says shard 2 of 3; allowed: 1 of 3"):
        open_gguf(first)
    first, *_ = shards(tmp_path, total=12)
    with pytest.raises(ModelError, match="and its shards have 11 tensors; allowed: 12"):
        open_gguf(first)
    first.rename(tmp_path / "other.gguf")
    with pytest.raises(
        ModelError, match=r"says that it is one of 3 shards; allowed: a name that ends in -00001-of-00003"
    ):
        open_gguf(tmp_path / "other.gguf")


def header_peak(raw: bytes) -> int | None:
    """Bytes that reading a header takes at most; None for one that is refused."""
    tracemalloc.start()
    try:
        read_header(memoryview(raw), "model.gguf")
    except ModelError:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    return peak


def test_random_mutations_are_errors_of_our_own(tmp_path: Path) -> None:
    """Every header is read; of those that still are one each configuration, and every third file to its end."""
    file = tiny_llama()
    raw, path, draw = file.to_bytes(), tmp_path / "model.gguf", random.Random(7)
    end = len(raw) - sum(len(e.data) + -len(e.data) % 32 for e in file.entries)
    survived = 0
    read_whole(file.write(path))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(MUTATIONS):
        damaged = mutated(raw, end, draw)
        if header_peak(damaged) is not None:
            survived += 1
            path.write_bytes(damaged)
            with suppress(ModelError):
                (read_whole if survived % 3 == 0 else read_config)(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 64 << 10  # KiB, torch's own memory among it
    assert 0.02 * MUTATIONS < survived < 0.7 * MUTATIONS


@pytest.mark.parametrize("size", [250_000])
def test_a_large_vocabulary_is_stepped_over(size: int) -> None:
    """And is read when it is asked for, each token at its place."""
    tokens = [f"token {i}" for i in range(size)]
    file = File([pair("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)), pair("last", U32, 7)])
    metadata = read_header(memoryview(file.to_bytes()), "model.gguf").metadata
    assert metadata.integer("last") == 7
    assert metadata.texts("tokenizer.ggml.tokens") == tokens


def test_entries_may_come_in_any_order(tmp_path: Path) -> None:
    file = tiny_llama()
    offsets, at = [], 0
    for entry in file.entries:
        offsets.append(at)
        at += len(entry.data) + -len(entry.data) % 32
    data = b"".join(e.data + bytes(-len(e.data) % 32) for e in file.entries)
    entries = [Entry(e.name, e.dims, e.kind, b"", offset) for e, offset in zip(file.entries, offsets, strict=True)]
    other = File(file.pairs, entries[::-1])
    (tmp_path / "other.gguf").write_bytes(other.to_bytes() + data)
    found = {w.name: w.value for w in open_gguf(tmp_path / "other.gguf").weights()}
    for weight in open_gguf(file.write(tmp_path / "model.gguf")).weights():
        assert torch.equal(found[weight.name], weight.value)  # type: ignore[arg-type]
