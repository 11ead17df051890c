"""A virtual environment for each peer, in the user's cache folder; made once, and again when its recipe changes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from peers.protocol import MAX_REASON
from peers.recipes import Recipe

_REQUIREMENTS = """
import importlib.metadata, json, sys
print(json.dumps([line for name in sys.argv[1:] for line in importlib.metadata.requires(name) or []]))
"""


class CannotInstallError(Exception):
    """Why a peer is absent, in one line."""


def python_of(name: str, recipe: Recipe, folder: Path) -> Path:
    """The interpreter of a peer, installed first if need be.

    Raises:
        CannotInstallError: with the line in which pip says why; all it said is in `folder/name.log`.
    """
    if not recipe.packages:
        return Path(sys.executable)
    place, marker = folder / name, folder / name / "recipe.txt"
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wants = repr((recipe.packages, recipe.bare, recipe.unwanted))
    if not marker.exists() or marker.read_text() != wants:
        folder.mkdir(parents=True, exist_ok=True)
        _install(place, python, recipe, folder / f"{name}.log")
        marker.write_text(wants)
    return python


def _install(place: Path, python: Path, recipe: Recipe, log: Path) -> None:
    log.write_text("")
    _run([sys.executable, "-m", "venv", str(place)], log)
    _pip(python, recipe.packages, log)
    if recipe.bare:
        _pip(python, ["--no-deps", *recipe.bare], log)
        _pip(python, [*recipe.packages, *wanted(_requirements(python, recipe.bare, log), recipe.unwanted)], log)


def wanted(requirements: Sequence[str], unwanted: Sequence[str]) -> list[str]:
    """Requirements other than of these packages; pip itself leaves out those of extras and of other systems."""
    return [line for line in requirements if re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() not in unwanted]


def _requirements(python: Path, packages: Sequence[str], log: Path) -> list[str]:
    names = [package.split("==")[0] for package in packages]
    found: list[str] = json.loads(_run([str(python), "-c", _REQUIREMENTS, *names], log))
    return found


def _pip(python: Path, arguments: Sequence[str], log: Path) -> None:
    _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments], log)


def _run(command: Sequence[str], log: Path) -> str:
    """Run a step and return what it printed; all of it is appended to the log."""
    done = subprocess.run(command, capture_output=True, text=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(done.stdout + done.stderr)
    if done.returncode != 0:
        raise CannotInstallError(why(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def why(text: str) -> str:
    """The last line in which pip names an error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:MAX_REASON]
