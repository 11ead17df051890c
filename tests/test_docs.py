"""The documents run: code in them is executed, files they name exist."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

import paceline
from paceline.drafters import available, base
from paceline.pacing import FixedPacer
from plugins.installing import pip_install

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "paceline"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


MOST_WORDS = 34  # of a sentence: about 30
SHORT = [page for page in PAGES if page.parent == ROOT / "docs"]


def sentences(text: str) -> list[str]:
    """Sentences of a page's prose: code, tables and headings left out, an item of a list on its own."""
    prose = re.sub(r"```.*?```|^(?:[|#]|    ).*?$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", prose, flags=re.MULTILINE)
    return [one for block in blocks for one in re.split(r"(?<=[.!?])[*)\"]*\s+", block.strip()) if one]


def test_a_sentence_ends_where_it_ends() -> None:
    text = "# No\n\nOne. **Two is\nlonger.** Three (a.b, 0.5)!\n\n- four\n- five\n\n| no | no |\n```\nno\n```\n"
    assert sentences(text) == ["One.", "**Two is\nlonger.", "Three (a.b, 0.5)!", "four", "five"]


@pytest.mark.parametrize("page", SHORT, ids=lambda p: p.name)
def test_sentences_are_short(page: Path) -> None:
    for sentence in sentences(page.read_text()):
        assert len(re.findall(r"\w[\w'’.-]*", sentence)) <= MOST_WORDS, f"{page.name}: {sentence}"


def test_the_glossarys_words_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    words = [word for word in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) if word != "here"]
    assert len(words) > 20
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    absent = [word for word in words if not re.search(rf"\b{re.escape(word)}s?\b", code, re.IGNORECASE)]
    assert not absent


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Drafters that are registered or found in packages are forgotten afterwards."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(base, "_PACKAGES", {})
    yield monkeypatch
    sys.modules.pop("bigram", None)


def test_the_drafter_of_the_guide_is_listed_and_changes_no_byte(
    forced: paceline.LLM, forgetful: pytest.MonkeyPatch
) -> None:
    (drafter,) = code_blocks(ROOT / "docs" / "add-a-drafter.md")
    guide = ModuleType("guide")
    forgetful.setitem(sys.modules, "guide", guide)  # where dataclasses look
    exec(drafter, guide.__dict__)
    assert "bigram" in available()
    plain = forced.generate("Once upon a time", max_tokens=40, drafters="none")
    drafted = forced.generate("Once upon a time", max_tokens=40, drafters=["bigram:depth=2"])
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.drafters["bigram"].num_draft_tokens > 0
    assert drafted.stats.drafters["bigram"].num_failures == 0


def test_the_package_of_the_guide_installs_and_its_drafter_is_used(
    tmp_path: Path, forgetful: pytest.MonkeyPatch
) -> None:
    guide = ROOT / "docs" / "add-a-drafter.md"
    (drafter,), (project,) = code_blocks(guide), code_blocks(guide, "toml")
    folder = tmp_path / "bigram"
    folder.mkdir()
    (folder / "bigram.py").write_text(drafter)
    (folder / "pyproject.toml").write_text(project)
    forgetful.syspath_prepend(str(pip_install(folder, tmp_path)))
    with paceline.load(drafters=["auto", "bigram:depth=5"]) as llm:
        plain = llm.generate("Once upon a time", max_tokens=40, drafters="none")
        drafted = llm.generate("Once upon a time", max_tokens=40, pacer=FixedPacer(7))
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.drafters["bigram"].num_proposals > 0
    assert base.package_of("bigram") == "paceline-bigram 1.0"


def test_the_readmes_python_runs() -> None:
    blocks = [block for block in code_blocks(ROOT / "README.md") if "openai" not in block]  # see test_server_docs.py
    assert blocks
    for block in blocks:
        exec(block, {})


def test_the_python_of_the_page_on_transformers_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = code_blocks(ROOT / "docs" / "transformers.md")
    exec(block, {})
    assert "Once upon a time, there was" in capsys.readouterr().out


def test_the_python_of_the_page_on_reports_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in code_blocks(ROOT / "docs" / "report.md"):
        exec(block, {})
        assert "entropy" in capsys.readouterr().out


def test_the_python_of_the_page_on_decisions_runs(
    bundled: paceline.LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paceline, "load", lambda: nullcontext(bundled), raising=False)
    for block in code_blocks(ROOT / "docs" / "decide.md"):
        exec(block, {})
    assert "PlayMusic: " in capsys.readouterr().out


def test_the_page_of_public_names_is_what_the_docstrings_say() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert page == runpy.run_path(str(ROOT / "scripts" / "api_page.py"))["page"]()
    assert all(f"### `{name}`" in page for name in paceline.__all__ if not name.startswith("__"))
