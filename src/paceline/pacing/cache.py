"""Measured costs, kept in the user's cache folder: a model is measured once on a machine, and when that is stale."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from paceline._version import __version__
from paceline.pacing.costs import ForwardCost, Rehearsing, measure, quickest

_STALE_SECONDS = 30 * 86400
_CONTRADICTED = 1.5  # times slower or faster than remembered: another machine, or another load on it
_SHORT = 32  # positions of context


class Measurable(Rehearsing, Protocol):
    """A target that says what its costs depend on."""

    def numerics(self) -> dict[str, Any]:
        """The numeric path."""

    def memory(self) -> dict[str, int]:
        """Bytes, weights among them."""


def forward_costs(target: Measurable, name: str) -> dict[int, ForwardCost]:
    """A target's forward costs: remembered ones if they still hold, else measured and remembered.

    Every row count is run either way, so that nothing is left to be prepared while decoding.
    """
    path = cache_folder() / f"{_key(target, name)}.json"
    costs = _read(path)
    if costs is None or list(costs) != list(target.row_counts) or not _holds(costs, target):
        costs = measure(target)
        _write(path, costs)
    return costs


def cache_folder() -> Path:
    """`PACELINE_CACHE`, or `paceline` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PACELINE_CACHE") or Path(base) / "paceline") / "costs"


def _key(target: Measurable, name: str) -> str:
    what: dict[str, Any] = {
        "name": name,
        "release": __version__,
        "host": os.uname().nodename if hasattr(os, "uname") else "",
    }
    what |= {"numerics": target.numerics(), "weights": target.memory()["weight_bytes"]}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _holds(costs: Mapping[int, ForwardCost], target: Measurable) -> bool:
    """Whether forwards of every row count still take about what they took."""
    times = {count: quickest(target, count, _SHORT, 2) for count in target.row_counts}
    ratios = [seconds / costs[count].at(_SHORT) for count, seconds in times.items() if seconds is not None]
    return all(1 / _CONTRADICTED < ratio < _CONTRADICTED for ratio in ratios)


def _read(path: Path) -> dict[int, ForwardCost] | None:
    try:
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            return None
        costs = {int(rows): ForwardCost(*map(float, cost)) for rows, cost in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # none, or none that can be read
        return None
    is_sound = all(cost.at(_SHORT) > 0.0 and cost.slope >= 0.0 for cost in costs.values())
    return costs if is_sound else None


def _write(path: Path, costs: Mapping[int, ForwardCost]) -> None:
    """Remember costs; a cache that cannot be written is none."""
    text = json.dumps({rows: [cost.base, cost.slope] for rows, cost in costs.items()})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            file = Path(folder) / path.name
            file.write_text(text)
            os.replace(file, path)
