"""`paceline train` as a user runs it: refused in a sentence, stopped and gone on with, and a table at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.cli.train import parse_choices
from paceline.errors import ConfigError
from paceline.heads.formats.speculators_dspark import read_head

SMALL = ["--set", "length=48", "--set", "sequences=2", "--set", "anchors=4", "--set", "rank=0", "--set", "taps=2,3"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(f"There was a fox number {i}" for i in range(12)))
    return path


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--kind", "eagle"], "kind is 'eagle'; allowed: block, draft"),
        (["--set", "rank"], "--set is 'rank'; allowed: NAME=VALUE"),
        (["--set", "ranks=2"], "the recipe has no 'ranks'"),
        (["--set", "loss=mse"], "loss is 'mse'; allowed: kl, tv, lk, match"),
        (["--search", "--steps", "3"], "allowed: --kind block without --steps"),
        (["no/such/model"], "no model 'no/such/model'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, prompts: Path, more: list[str], words: str) -> None:
    done = run("train", "--prompts", str(prompts), "--out", str(prompts.parent / "out"), *more)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert done.stderr.count("\n") <= 2


def test_prompts_that_are_not_there_are_refused(run, tmp_path: Path) -> None:
    done = run("train", "--prompts", str(tmp_path / "none"), "--out", str(tmp_path / "out"), "--documents", "8")
    assert done.returncode == 2
    assert "cannot read prompts" in done.stderr


def test_a_run_is_stopped_and_gone_on_with(run, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = prompts.parent / "mine"
    asked = ["train", "--prompts", str(prompts), "--out", str(out), "--documents", "16", "--steps", "3", *SMALL]

    def give_up(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paceline.console.ProgressBar.update", give_up)
    monkeypatch.setattr("paceline.cli._leave", lambda: (_ for _ in ()).throw(SystemExit(130)))
    stopped = run(*asked)
    assert stopped.returncode == 130
    assert f"the same command goes on from {out / 'training'}" in stopped.stderr
    monkeypatch.undo()
    done = run(*asked)
    assert done.returncode == 0, done.stderr
    assert f"--drafters auto,block:path={out}" in done.stdout.replace("\n", "")
    assert read_head(out).config.taps == (2, 3)
    other = run(*asked, "--seed", "1")
    assert other.returncode == 2
    assert "--fresh" in other.stderr
    fresh = run(*asked, "--seed", "1", "--fresh")
    assert fresh.returncode == 0


def test_choices_are_checked_before_anything_is_loaded() -> None:
    assert parse_choices(["taps=1,2", "rate=0.1"]) == {"taps": (1, 2), "rate": 0.1}
    with pytest.raises(ConfigError, match="a whole number"):
        parse_choices(["rank=many"])
