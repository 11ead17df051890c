"""Imports go one way, files stay small, and the host side knows nothing of torch."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "paceline"
MODULES = sorted(SRC.rglob("*.py"))

# A module may import from its own layer and from those before it, for type checkers too.
LAYERS = [
    {"errors", "_version", "bundled", "cache", "garbage", "jsonl", "wealth"},
    {"adapters", "architectures", "checks", "synonyms", "console", "provenance", "client"},
    {"params", "text"},
    {"sampling"},
    {"engine", "native"},
    {"formats"},
    {"pacing", "model", "heads", "learning", "drafters", "output", "scores", "deciding"},
    {"options", "loading", "testing", "vllm"},
    {"drafter_set", "request_factory", "scoring"},
    {"questions"},
    {"streams", "runtime", "mailbox"},
    {"judging"},
    {"llm"},
    {"accelerating"},
    {"report", "lmeval"},
    {"doctor"},
    {"training"},
    {"certify"},
    {"server"},
    {"bench"},
    {"cli", "__main__"},
]
TORCH_FREE = [
    "errors",
    "bundled/__init__",
    "cache",
    "garbage",
    "checks",
    "synonyms",
    "console",
    "client",
    "params",
    "text/stream",
    "text/prompts",
    "text/prompt_sets",
    "text/prompt_formats",
    "sampling",
    "engine",
    "pacing",
    "report",
    "output",
    "scores",
    "deciding",
]


def part_of(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0].removesuffix(".py")


def is_in(path: Path, part: str) -> bool:
    return f"{path.relative_to(SRC).with_suffix('')}/".startswith(f"{part}/")


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules imported anywhere in a file, those for type checkers alone among them."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return frozenset(found)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(SRC)} imports {name}"
        for path in MODULES
        if path != SRC / "__init__.py"
        for name in imports_of(path)
        if name.startswith("paceline.") and layer_of(name.split(".")[1]) > layer_of(part_of(path))
    ]
    assert not wrong


@pytest.mark.parametrize("part", TORCH_FREE)
def test_the_host_side_imports_no_torch(part: str) -> None:
    names = set().union(*(imports_of(path) for path in MODULES if is_in(path, part)))
    assert names
    assert not [n for n in names if n.split(".")[0] in ("torch", "transformers")]


def test_only_models_and_what_measures_them_import_torch() -> None:
    users = {part_of(p) for p in MODULES if any(n.split(".")[0] == "torch" for n in imports_of(p))}
    assert users <= {
        "accelerating",
        "bundled",
        "formats",
        "heads",
        "learning",
        "training",
        "model",
        "native",
        "bench",
        "certify",
        "provenance",
    }  # bundled: grow.py alone


def test_the_pacer_of_an_engine_is_swapped_by_its_owners_alone() -> None:
    """Whoever wants another one for a call says `generate(..., pacer=...)`."""
    for path in [p for p in MODULES if not is_in(p, "engine") and not is_in(p, "llm")]:
        for node in nodes_of(path):
            if isinstance(node, ast.Attribute) and node.attr == "pacer" and isinstance(node.ctx, ast.Store):
                assert isinstance(node.value, ast.Name), f"{path.name}:{node.lineno}"
                assert node.value.id == "self", f"{path.name}:{node.lineno}"


def test_nothing_is_built_on_the_benchmark() -> None:
    for path in [p for p in MODULES if not is_in(p, "bench")]:
        names = {name for name in imports_of(path) if name.startswith("paceline.bench")}
        assert names <= ({"paceline.bench.cli"} if path == SRC / "cli" / "__init__.py" else set()), path


def test_what_serves_this_project_alone_stays_in_benchmarks() -> None:
    for path in MODULES:
        assert not [words for words in ("is_reached", "../shared") if words in path.read_text()], path
        assert not {name.split(".")[0] for name in imports_of(path)} & {"matplotlib", "llama_cpp", "gguf"}, path


def test_files_stay_small() -> None:
    lines = {str(path.relative_to(SRC)): path.read_text().count("\n") for path in MODULES}
    assert not {name: count for name, count in lines.items() if count > 330}


def test_functions_stay_small() -> None:
    lines = {
        f"{path.relative_to(SRC)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef)
    }
    assert len(lines) > 1000
    assert not {name: count for name, count in lines.items() if count > 60}


def test_no_code_branches_on_a_drafters_name() -> None:
    names = {p.stem for p in (SRC / "drafters").glob("*.py")} - {"__init__", "base"}
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.Compare):
                literals = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
                assert not names & {v for v in literals if isinstance(v, str)}, f"{path.name}:{node.lineno}"
