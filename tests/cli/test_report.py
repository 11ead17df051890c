"""`paceline report` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.bundled import COMMANDS

SHORT = ("--max-tokens", "12", "--temperature", "0.8", "--seed", "3")


@pytest.fixture
def run(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`paceline report` in this process, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def report(*args: str, stdin: str = "") -> tuple[int, str, str]:
        done = run("report", *args, stdin=stdin)
        return done.returncode, done.stdout, done.stderr

    return report


def test_a_report_of_several_prompts_is_one_page(run, tmp_path: Path) -> None:
    code, said, errors = run("Once upon a time", "-", *SHORT, stdin="ROMEO:\n")
    assert (code, errors) == (0, "")
    assert said.count("12 tokens, ") == 2
    assert said.endswith("report.html\n")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("<article") == 2
    assert html.count("data-i=") == 24
    assert "ROMEO:" in html


def test_the_text_is_that_of_generate(run, bundled, tmp_path: Path) -> None:
    assert run("Once upon a time", *SHORT, "--out", "page.html")[0] == 0
    expected = bundled.generate("Once upon a time", max_tokens=12, temperature=0.8, seed=3, logprobs=5)
    assert [f'"id": {token}' in (tmp_path / "page.html").read_text() for token in expected.token_ids] == [True] * 12


def test_an_evaluation_is_a_table_and_a_part_of_the_page(run, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(COMMANDS.read_text(encoding="utf-8").splitlines(keepends=True)[::20]), encoding="utf-8")
    code, said, errors = run("--evaluate", "--commands", str(few), "--drafters", "model")
    assert (code, errors) == (0, "")
    for word in ("AUROC", "entropy", "margin", "disagreement", "Uncertainty is not error"):
        assert word in said
    assert not (tmp_path / "report.html").exists()
    assert run("--evaluate", "--commands", str(few), "--out", "page.html")[0] == 0
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="scores"' in html
    assert "<article" not in html


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "there is nothing to report on"),
        ([""], "the prompt is empty"),
        (["Once", "--temperature", "-1"], "temperature is -1.0; allowed"),
        (["Once", "--out", "nowhere/report.html"], "--out is 'nowhere/report.html'; allowed"),
        (["Once", "--drafters", "none,suffix"], "'none' stands alone"),
        (["--evaluate", "--commands", "none.jsonl"], "cannot read commands from 'none.jsonl'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(run, args: list[str], said: str) -> None:
    code, out, errors = run(*args)
    assert (code, out) == (2, "")
    assert said in errors
    assert "Traceback" not in errors
