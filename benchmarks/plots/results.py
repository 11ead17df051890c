"""Results of earlier benchmarks, read back from their JSON files, and where they differ in origin.

A file may have been written by another release, edited, or be no result at all: what is wrong is said in one sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.console import Table
from paceline.errors import ConfigError

_MACHINE = ("processor", "device", "instruction_set", "threads", "cores", "environment")
_LONGEST = 200  # characters of a text taken from a file


@dataclass(frozen=True)
class Result:
    """One file: a short name for it, of which kind it is, and what it holds."""

    name: str
    kind: str
    content: Mapping[str, Any]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Command, commit, versions and machine, as provenance.py writes them."""
        found = self.content["provenance"]
        if not isinstance(found, dict) or not isinstance(found.get("versions"), dict):
            raise KeyError("provenance")
        return found


def read_results(paths: Sequence[Path], kinds: Sequence[str]) -> list[Result]:
    """The results in `paths`, all of one kind.

    Raises:
        ConfigError: a file that cannot be read, is of none of `kinds`, or of another kind than the first.
    """
    results = [_read(path, name, kinds) for path, name in zip(paths, _short_names(paths), strict=True)]
    for path, result in zip(paths, results, strict=True):
        if result.kind != results[0].kind:
            first = f"{str(paths[0])!r} of {results[0].kind!r}"
            raise ConfigError(f"{str(path)!r} is a result of {result.kind!r} and {first}; allowed: one kind at a time")
    return results


def _read(path: Path, name: str, kinds: Sequence[str]) -> Result:
    allowed = f"allowed: results of paceline bench ({', '.join(kinds)})"
    try:
        content = _printable(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read {str(path)!r} ({error}); {allowed}") from error
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in kinds:
        found = f"has the kind {kind!r:.40}" if kind is not None else "names no kind"
        raise ConfigError(f"{str(path)!r} {found}; {allowed}")
    return Result(name, str(kind), content)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The files' stems, numbered where they are the same."""
    stems = [_printable(path.stem) for path in paths]
    return [f"{stem} {stems[: i + 1].count(stem)}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]


def _printable(value: Any) -> Any:
    """The same without what could steer a terminal, and without endless texts."""
    if isinstance(value, str):
        text = "".join(c if c.isprintable() else " " for c in value)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def number(value: Any) -> float:
    """A finite number from 0 up out of a file: no figure of a benchmark is any other.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.40} is no number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{value} is no finite number from 0 up")
    return float(value)


def guarded(results: Sequence[Result], build: Callable[[Sequence[Result]], Any]) -> Any:
    """What `build` makes of the results; a file that is not as this release writes it is a user's error."""
    try:
        return build(results)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        names = ", ".join(result.name for result in results)
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"cannot show {names}: {what}; allowed: results of paceline bench {results[0].kind} of this release"
        ) from error


def origins(results: Sequence[Result]) -> Table:
    """Where each result comes from, and in which versions and properties of the machine they differ."""
    columns = ("result", "commit", "date", "processor", "threads", "torch", "command")
    table = Table("Results", columns)
    for result in results:
        found = result.provenance
        commit = str(found["commit"] or "unknown")
        short = commit[:10] + ("+" if commit.endswith("+") else "")
        machine = (str(found[key]) for key in ("date", "processor", "threads"))
        table.rows.append((result.name, short, *machine, str(found["versions"].get("torch")), str(found["command"])))
    table.notes += _differences(results)
    return table


def _differences(results: Sequence[Result]) -> list[str]:
    facts = [
        {key: result.provenance.get(key) for key in _MACHINE} | dict(result.provenance["versions"])
        for result in results
    ]
    notes = []
    for key in dict.fromkeys(key for fact in facts for key in fact):
        found = [str(fact.get(key)) for fact in facts]
        if len(set(found)) > 1:
            told = ", ".join(f"{result.name}: {value}" for result, value in zip(results, found, strict=True))
            notes.append(f"Warning: these results differ in {key} ({told}), so not in the code alone")
    return notes
