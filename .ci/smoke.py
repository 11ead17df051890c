"""Uses the installed package, whose files must be all that are tracked: `smoke.py FILE`, a list of their paths."""

import sys
from pathlib import Path

import paceline
from paceline.native.library import library, status
from paceline.report import page

HOME = Path(paceline.__file__).parent


def check_files(tracked: list[str]) -> None:
    """Package data (weights, templates, C sources, `py.typed`) and modules are where the tracked ones were."""
    assert tracked
    absent = [path for path in tracked if not (HOME.parent / Path(path).relative_to("src")).is_file()]
    assert not absent, f"not in the wheel: {absent}"


def check_use() -> None:
    """Both bundled models, the kernels and a template do what they are for."""
    assert library() is not None, status()
    with paceline.load() as llm:
        out = llm.generate("Once upon a time", max_tokens=20, seed=7, logprobs=3)
        plain = llm.generate("Once upon a time", max_tokens=20, seed=7, drafters="none")
    assert out.token_ids == plain.token_ids
    assert page(out).startswith("<!doctype html>")


assert Path(sys.prefix) in HOME.parents, f"{HOME} is not in {sys.prefix}"
check_files(Path(sys.argv[1]).read_text().split())
check_use()
print(f"The wheel works: {HOME.name} {paceline.__version__}, {status()}.")
