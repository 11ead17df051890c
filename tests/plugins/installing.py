"""Packages as a user has them: installed by pip from a folder, or written where Python looks for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"


def pip_install(source: Path, scratch: Path) -> Path:
    """The folder into which pip installs a project, without network; nothing is written beside the project."""
    project, site = scratch / "project", scratch / "site"
    shutil.copytree(source, project)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "--target", str(site), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return site


def write_package(site: Path, package: str, module: str, code: str, entry_points: dict[str, str]) -> None:
    """A module and what pip would say of it, without pip."""
    info = site / f"{package.replace('-', '_')}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[paceline.drafters]", *lines, ""]))
    (site / f"{module}.py").write_text(code)


def python_with(python: str, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with a folder of packages before its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(SRC)])}
    return subprocess.run([python, *arguments], env=environment, capture_output=True, text=True, timeout=180)
