"""Writes docs/api.md from the docstrings of every public name; with --check, says whether it is up to date.

usage: python scripts/api_page.py [--check]
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
MODULES = ("paceline", "paceline.report", "paceline.drafters", "paceline.testing")
HEAD = """# Every public name

Written by `python scripts/api_page.py` from the docstrings; a test holds it to them. `LLM` is where to begin:

```python
import paceline

with paceline.LLM() as llm:  # the bundled model; or a hub name, a folder, a PreTrainedModel
    params = paceline.SamplingParams(temperature=0.8, seed=7, max_tokens=20)
    out = llm.generate("Once upon a time", params)
    outs = llm.generate(["Once", "Twice"], params, max_tokens=5)  # keyword options override
    print(out.text, out.stats.mean_acceptance_length, len(outs))
```

One thread of each `LLM` owns its engine. Callers, threads and coroutines alike, hand requests in and are woken when
there is news, so callers add no threads of the kernels. [kernels.md](kernels.md) says what that costs.

Names that vLLM has too mean the same here, with these defaults of our own: `temperature` is 0 (vLLM 1.0) and
`max_tokens` 256 (vLLM 16). `n` above 1 wants a list of prompts, and gives each prompt's samples side by side.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"\n## `{name}`\n")
        parts += [part for public in sorted(module.__all__) for part in entry(public, getattr(module, public))]
    return "\n".join(parts).rstrip() + "\n"


def entry(name: str, thing: Any) -> Iterator[str]:
    """A name, what it says of itself, and its members."""
    if name.startswith("__"):
        return
    yield f"### `{name}`\n\n{text(thing)}\n" if callable(thing) else f"### `{name}`\n\n`{thing!r}`\n"
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing):
            yield f"Fields: {', '.join(f'`{field.name}`' for field in dataclasses.fields(thing))}.\n"
        for member, what in sorted(members(thing).items()):
            if not member.startswith("_") and _is_documented(what):
                yield f"- **`{member}{signature(what)}`**: {first(what)}"
        yield ""


def members(thing: type) -> dict[str, Any]:
    """What a class has of its own, and of a private half of it."""
    halves = [half for half in thing.__bases__ if half.__module__ == "paceline.judging"]
    return {name: what for one in (*halves, thing) for name, what in vars(one).items()}


def signature(what: Any) -> str:
    """The names of a method's parameters."""
    function = inspect.unwrap(getattr(what, "__func__", what))
    if not inspect.isfunction(function):
        return ""
    names = [
        ("**" if p.kind is p.VAR_KEYWORD else "") + p.name
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "cls")
    ]
    return f"({', '.join(names)})"


def text(thing: Any) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Yields):", line):
            lines.append(f"{line}\n")
        elif found := re.match(r" {4}(\*{0,2}\w+): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            item = re.sub(r"^ {8}(?=\w+: )", "  - ", line)
            lines.append(item if not item.startswith(" " * 8) else f"  {item.strip()}")
    return "\n".join(lines)


def first(what: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(what) or "").split("\n\n")[0].split())


def _is_documented(what: Any) -> bool:
    return bool(inspect.getdoc(what)) and (callable(what) or isinstance(what, property | classmethod | staticmethod))


def main() -> int:
    """The command."""
    expected = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() != expected:
            print("docs/api.md is not what the docstrings say; run python scripts/api_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(expected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
