"""The commands do without the extras; where one is needed, one line says what to install."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

EXTRAS = ["matplotlib", "llama_cpp", "gguf", "scipy", "jsonschema", "hypothesis", "pytest"]


CODE = """
import sys
sys.modules.update(dict.fromkeys({modules!r}))
from paceline.cli import main
for arguments in {commands!r}:
    sys.argv = ["paceline", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    print("and it ends well")
"""


def run_without(modules: Sequence[str], *commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`paceline`, command by command until one fails, in a process that cannot import some modules."""
    code = CODE.format(modules=list(modules), commands=list(commands))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_commands_run_without_the_extras(tmp_path: Path) -> None:
    page, few = tmp_path / "report.html", ("Once upon a time", "--max-tokens", "3")
    done = run_without(EXTRAS, ("drafters",), ("generate", *few), ("report", *few, "--out", str(page)))
    assert done.returncode == 0, done.stderr
    listed, generated, reported, nothing = done.stdout.split("and it ends well\n")
    assert "suffix" in listed
    assert generated
    assert reported
    assert not nothing
    assert page.read_text().startswith("<!doctype html>")


def test_putting_load_on_a_server_says_what_to_install() -> None:
    done = run_without(["httpx"], ("bench", "serve", "--port", "1"))
    assert done.returncode != 0
    assert 'httpx is not installed; allowed: pip install "paceline[server]" first' in done.stderr
    assert "Traceback" not in done.stderr
