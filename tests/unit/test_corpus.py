"""Drafts from a folder of texts, and what is refused."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract.keeping import STORY, DrafterContract
from paceline import ConfigError
from paceline.drafters import corpus
from paceline.drafters.corpus import CorpusDrafter
from paceline.engine.request import DraftLimits, Environment, Hints


class Letters:
    """A tokenizer with one token per character."""

    def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
        assert options == {"add_special_tokens": False, "verbose": False}
        return {"input_ids": [min(ord(character), 255) for character in text]}


HERE = Environment(Letters(), 256, "cpu")


def corpus_of(path: Path, **options: object) -> CorpusDrafter:
    drafter = CorpusDrafter(path=str(path), **options)  # type: ignore[arg-type]
    drafter.attach(HERE)
    return drafter


def drafted(drafter: CorpusDrafter, context: str, budget: int = 5, tenant: str = "") -> str:
    request = SimpleNamespace(id=1, tokens=[ord(c) for c in context], hints=Hints(tenant=tenant))
    assert drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(budget))
    drafter.finish(request)
    assert all(0 <= score <= 1 for score in tree.scores)
    return "".join(map(chr, tree.tokens))


def test_a_folders_texts_draft_for_every_tenant(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_text("the quick brown fox")
    (tmp_path / "inner" / "b.JSONL").write_text('{"jumps": "over"}\n')
    (tmp_path / "c.bin").write_text("the quicksand")
    drafter = corpus_of(tmp_path)
    assert drafted(drafter, "a quick", tenant="ann") == drafted(drafter, "a quick", tenant="bob") == " brow"
    assert drafted(drafter, '"jumps') == '": "o'
    assert drafted(drafter, "zzzz") == ""


def test_one_file_of_any_name_will_do(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"caf\xe9 noir, caf\xe9 noir")  # not UTF-8: read as far as it can be
    assert drafted(corpus_of(tmp_path / "notes"), "no", 2) == "ir"


def test_a_long_text_is_read_in_parts_that_end_with_a_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(corpus, "PART", 10)
    (tmp_path / "a.txt").write_text("".join(f"line number {i}\n" for i in range(30)))
    assert drafted(corpus_of(tmp_path), "umber 2", 2)
    parts = list(corpus._parts(tmp_path / "a.txt"))
    assert "".join(parts) == (tmp_path / "a.txt").read_text()
    assert all(part.endswith("\n") or len(part) == 20 for part in parts)


def test_what_is_over_the_memory_is_left_out_with_a_warning(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name}. " * 1500)
    with pytest.warns(RuntimeWarning, match="corpus: 2 of 3 files were left out.*max_megabytes is 0.15"):
        drafter = corpus_of(tmp_path, max_megabytes=0.15)
    assert drafter._store.num_bytes <= 0.15 * 2**20
    assert drafted(drafter, " a. ", 1) == "a"


def test_every_byte_that_is_read_is_told_to_the_progress_bar(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "a.txt").write_text("the quick brown fox\n" * 30)
    (tmp_path / "b.txt").write_text("übermäßig\n" * 5)
    told: list[float] = []

    @contextmanager
    def progress(label: str, total: float):
        told.append(total)
        yield lambda count: told.append(count)

    corpus_of(tmp_path)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(corpus, "PART", 50)
    monkeypatch.setattr(corpus, "progress", progress)
    corpus_of(tmp_path)
    total, *counts = told
    assert total == sum(counts) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert len(counts) > 5


def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corpus: path is '', which does not exist; allowed: a text file or a folder"):
        CorpusDrafter().attach(HERE)
    with pytest.raises(ConfigError, match=r"path is '.*nowhere', which does not exist"):
        corpus_of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"without text files; allowed: .*.txt"):
        corpus_of(tmp_path)
    (tmp_path / "a.txt").write_text("the quick brown fox")
    with pytest.raises(ConfigError, match="corpus: the model has no tokenizer; allowed: a model with one"):
        CorpusDrafter(path=str(tmp_path)).attach(Environment(None, 256, "cpu"))


class TestCorpusKeepsTheContract(DrafterContract):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        path = tmp_path / "stories.txt"
        path.write_text(f"{STORY} The dog ran to the park with his red ball.")
        return f"corpus:path={path}"
