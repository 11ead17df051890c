"""`paceline certify` on one model of each family, in a process of its own as a user would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sweeping.families import FAMILIES, Family

_LIMIT = 900  # seconds of one certificate


def family_of(name: str) -> Family:
    """A family by the name of its model."""
    named = {family.name: family for family in FAMILIES}
    if name not in named:
        raise SystemExit(f"{name!r} is no model of a family; allowed: {', '.join(named)}")
    return named[name]


def certified(family: Family, seconds: float) -> dict[str, Any]:
    """The verdict of a certificate and what stands behind it; "crash" where none was written."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        model, file = family.write(Path(place)), Path(place) / "certificate.json"
        asked = [sys.executable, "-m", "paceline", "certify", str(model), "--seconds", str(seconds)]
        done = subprocess.run(
            [*asked, "--out", str(file.with_suffix(".html"))],
            env={**os.environ, "PACELINE_CACHE": place},
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        read = _read(json.loads(file.read_text("utf-8"))) if file.exists() else _crashed(done.stderr)
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    spent = round(time.perf_counter() - started, 1)
    return {"name": family.name, "family": family.what, **read, "day": day, "seconds": spent}


def _read(found: dict[str, Any]) -> dict[str, Any]:
    audit, controls, total = found["law"]["audit"], found["controls"], found["bytes"]["total"]
    return {
        "verdict": found["verdict"],
        "why": _why(found),
        "class": found["model"]["architecture"],
        "path": found["model"]["numerics"]["path"],
        "decisions": total["decisions"],
        "accepted": total["accepted_draft_tokens"],
        "audited": audit["decisions"],
        "sampled": sum(draws["tokens"] for draws in found["law"]["draws"]),
        "faults": [control["name"] for control in controls],
        "caught": sum(control["is_caught"] for control in controls),
        "unshown": [way["name"] for way in found["bytes"]["ways"] if not way["is_shown"]],
        "left_out": found["left_out"],
    }


def _why(found: dict[str, Any]) -> str:
    """What keeps a certificate from passing."""
    told = [f"{one['name']}: {one['found']}" for one in found["controls"] if not one["is_caught"]]
    first, law = found["bytes"]["divergence"], found["law"]
    told += [] if first is None else [f"{first['label']}: {first['cause']}, token {first['index']}"]
    told += [law["audit"]["first_wrong"]] if law["audit"]["first_wrong"] else []
    told += [] if law["is_right"] else [f"median error {law['audit']['median_error']:.2g}, p = {law['p_value']:.2g}"]
    return "; ".join(told)


def _crashed(errors: str) -> dict[str, Any]:
    lines = errors.strip().splitlines() or ["nothing was said"]
    return {"verdict": "crash", "why": lines[-1]}
