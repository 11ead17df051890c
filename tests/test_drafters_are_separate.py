"""A drafter is one file: nothing else imports it or counts on it, and the registry finds files without a list."""

from __future__ import annotations

import ast
import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC, TESTS = ROOT / "src", ROOT / "tests"
FOLDER = SRC / "paceline" / "drafters"
NAMES = sorted({path.stem for path in FOLDER.glob("[!_]*.py")} - {"base"})
# Where a string is taken for the name of a drafter.
CALLS = {"make", "prepared", "_drafter", "_resolve"}
KEYWORDS = {"drafters", "spec"}


def others(name: str) -> Iterator[Path]:
    """All files but a drafter's own and its own tests."""
    own = [FOLDER / f"{name}.py", *TESTS.rglob(f"test_{name}.py"), *TESTS.rglob(f"test_{name}_*.py")]
    for path in [*SRC.rglob("*.py"), *TESTS.rglob("*.py")]:
        if path not in own:
            yield path


def imports_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Everything that a file imports, as full names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def chosen_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Drafters that a file chooses by name."""
    for node in nodes:
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            values = [*node.args] if called in CALLS else []
            values += [keyword.value for keyword in node.keywords if keyword.arg in KEYWORDS]
            values = [value for value in values if not isinstance(value, ast.Dict)]  # figures by name choose nothing
            for constant in (inner for value in values for inner in ast.walk(value) if isinstance(inner, ast.Constant)):
                if isinstance(constant.value, str):
                    yield constant.value.split(":")[0]


@functools.cache
def facts(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """What a file imports, and which drafters it chooses."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return frozenset(imports_of(nodes)), frozenset(chosen_in(nodes))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_imports_a_drafter_or_chooses_it_by_name(name: str) -> None:
    for path in others(name):
        imported, chosen = facts(path)
        where = f"{path.relative_to(ROOT)} counts on drafters/{name}.py"
        assert f"paceline.drafters.{name}" not in imported, where
        assert name not in chosen, where


def test_the_check_sees_imports_and_choices() -> None:
    code = """
from paceline.drafters import first
from paceline.drafters.second import Thing
import paceline.drafters.third
llm.generate("Once", drafters=["fourth:depth=3", other])
base.make(f"fifth:{options}")
make("sixth")
print("seventh", {"eighth": 3})
Facts(drafters={"ninth": 3})
"""
    nodes = list(ast.walk(ast.parse(code)))
    assert {f"paceline.drafters.{name}" for name in ("first", "second", "third")} <= set(imports_of(nodes))
    assert set(chosen_in(nodes)) == {"fourth", "fifth", "sixth"}


def registered(python: str, folder: Path) -> list[str]:
    """What a copy of the package finds."""
    code = "from paceline.drafters import available; print(*available())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_file_more_is_a_drafter_more_and_a_file_less_one_less(python: str, tmp_path: Path) -> None:
    shutil.copytree(SRC / "paceline", tmp_path / "paceline", ignore=shutil.ignore_patterns("bundled", "*.c", "*.h"))
    folder = tmp_path / "paceline" / "drafters"
    (tmp_path / "paceline" / "bundled").mkdir()
    shutil.copy(SRC / "paceline" / "bundled" / "__init__.py", tmp_path / "paceline" / "bundled")
    assert registered(python, tmp_path) == NAMES
    (folder / "another.py").write_text(
        "from paceline.drafters.base import BaseDrafter, register\n\n"
        '@register("another")\nclass Another(BaseDrafter):\n    """Proposes nothing."""\n'
    )
    assert registered(python, tmp_path) == sorted([*NAMES, "another"])
    for name in NAMES[::2]:
        (folder / f"{name}.py").unlink()
    assert registered(python, tmp_path) == sorted([*NAMES[1::2], "another"])
    for name in NAMES[1::2]:
        (folder / f"{name}.py").unlink()
    assert registered(python, tmp_path) == ["another"]
