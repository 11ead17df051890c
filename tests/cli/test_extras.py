"""The commands do without the extras; where one is needed, one line says what to install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

EXTRAS = ["matplotlib", "llama_cpp", "gguf", "scipy", "jsonschema", "hypothesis", "pytest"]


def run_without(modules: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`paceline` in a process that cannot import some modules."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({list(modules)!r})); sys.argv = ['paceline', *{arguments!r}];"
        "from paceline.cli import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("command", [("generate", "Once upon a time", "--max-tokens", "3"), ("drafters",)], ids=str)
def test_a_command_runs_without_the_extras(command: tuple[str, ...]) -> None:
    done = run_without(EXTRAS, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_report_is_made_without_the_extras(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run_without(EXTRAS, "report", "Once upon a time", "--max-tokens", "3", "--out", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("<!doctype html>")


def test_putting_load_on_a_server_says_what_to_install() -> None:
    done = run_without(["httpx"], "bench", "serve", "--port", "1")
    assert done.returncode != 0
    assert 'httpx is not installed; allowed: pip install "paceline[server]" first' in done.stderr
    assert "Traceback" not in done.stderr
