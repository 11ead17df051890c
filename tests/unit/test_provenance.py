"""Where a figure comes from: the commit of this checkout, and what a machine says of itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from paceline import provenance

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.skipif(git("ls-files", "--error-unmatch", "src/paceline/_version.py") is None, reason="no checkout")
def test_the_commit_is_that_of_the_checkout_and_says_if_it_has_changed_since() -> None:
    commit = provenance.provenance(CPU)["commit"]
    changed = "+" if git("status", "--porcelain", "-uno") else ""
    assert commit == f"{git('rev-parse', 'HEAD')}{changed}"


def test_a_copy_outside_of_a_checkout_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.provenance(CPU)["commit"] is None


def test_all_of_it_can_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = json.loads(json.dumps(provenance.provenance(CPU)))
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["processor"]
