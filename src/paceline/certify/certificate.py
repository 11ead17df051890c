"""What a certificate says, ready for JSON: the plan, the machine, the findings of each part, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from paceline.certify.bytes import BytesResult
from paceline.certify.control import Control
from paceline.certify.harness import Tally
from paceline.certify.plan import FORMAT, Case, CertifyPlan
from paceline.certify.ways import Way


@dataclass(frozen=True)
class Agreement:
    """One point in which a certificate that is verified and its verification are compared."""

    what: str
    then: str
    now: str
    is_equal: bool
    is_required: bool


@dataclass
class Certificate:
    """The findings. `verdict` follows from them."""

    plan: CertifyPlan
    model: dict[str, Any]
    provenance: dict[str, Any]
    bytes: dict[str, Any]
    law: dict[str, Any]
    controls: list[Control]
    left_out: dict[str, str]  # what was not compared, and why
    not_shown: list[str]
    seconds: dict[str, float]
    agreements: list[Agreement] = field(default_factory=list)  # where an earlier certificate was verified

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or VOID: nothing was found, but a planted fault was not either, or pacing was not exercised."""
        is_kept = all(point.is_equal for point in self.agreements if point.is_required)
        if not (self.bytes["is_equal"] and self.law["is_right"] and is_kept):
            return "FAIL"
        is_sound = self.controls and all(control.is_caught for control in self.controls)
        return "PASS" if is_sound and not unexercised(self.bytes) else "VOID"

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        found = {name: getattr(self, name) for name in ("model", "provenance", "bytes", "law", "left_out", "not_shown")}
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "plan": self.plan.as_dict(),
            **found,
            "controls": [asdict(control) for control in self.controls],
            "seconds": self.seconds,
            "verification": [asdict(point) for point in self.agreements],
        }


def bytes_as_dict(result: BytesResult, ways: Sequence[Way], cases: Sequence[Case]) -> dict[str, Any]:
    """The comparisons, cell by cell; a cell or a way "is shown" if what it is about has happened in it."""
    by_name = {way.name: way for way in ways}
    shown = {key for key, tally in result.tallies.items() if by_name[key[0]].is_shown_by(tally)}
    return {
        "is_equal": result.is_equal,
        "total": _counts(result.total),
        "shown_decisions": sum(result.tallies[key].decisions for key in shown),
        "ways": [_way(way, way.name in {name for name, _ in shown}) for way in ways],
        "cases": [{"name": case.name, "sampling": _jsonable(case.sampling)} for case in cases],
        "cells": [
            {
                "way": way,
                "case": case,
                "is_equal": tally.is_equal,
                "is_shown": (way, case) in shown,
                **_counts(tally),
            }
            for (way, case), tally in result.tallies.items()
        ],
        "divergence": asdict(result.divergence) if result.divergence else None,
        "num_comparisons": result.num_comparisons,
        "fingerprint": result.fingerprint,
    }


def unshown(compared: Mapping[str, Any]) -> list[str]:
    """The ways that have shown nothing: no draft was verified in them, or nothing found in the prefix cache."""
    return [way["name"] for way in compared["ways"] if not way["is_shown"]]


def unexercised(compared: Mapping[str, Any]) -> list[str]:
    """Those of them without which a certificate does not stand."""
    return [way["name"] for way in compared["ways"] if way["is_required"] and not way["is_shown"]]


def agreements(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Agreement]:
    """An earlier certificate's JSON object beside that of its verification.

    Outputs must be the same bytes only where the numeric path is the same.
    """
    is_same_path = _numerics(then) == _numerics(now) and _versions(then) == _versions(now)
    points = [
        ("verdict", then["verdict"], now["verdict"], True),
        ("numeric path and versions", _path(then), _path(now), False),
        ("plain outputs and logits", then["bytes"]["fingerprint"], now["bytes"]["fingerprint"], is_same_path),
        ("decisions compared", _decisions(then), _decisions(now), is_same_path),
    ]
    found = [Agreement(what, str(a), str(b), a == b, required) for what, a, b, required in points]
    files = [one["model"]["files"] for one in (then, now)]
    return [*found, Agreement("model files", _short(files[0]), _short(files[1]), files[0] == files[1], True)]


def _way(way: Way, is_shown: bool) -> dict[str, Any]:
    return {"name": way.name, "text": way.text, "is_required": way.is_required, "is_shown": is_shown}


def _decisions(found: Mapping[str, Any]) -> str:
    return f"{found['bytes']['total']['decisions']:,}"


def _numerics(found: Mapping[str, Any]) -> Any:
    return found["model"]["numerics"]


def _versions(found: Mapping[str, Any]) -> Any:
    return found["provenance"]["versions"]


def _path(found: Mapping[str, Any]) -> str:
    numerics = _numerics(found)
    names = ", ".join(f"{name} {version}" for name, version in _versions(found).items())
    return f"{numerics['path']}, {numerics['dtype']}, {numerics['device']}, {numerics.get('threads')} threads; {names}"


def _short(files: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(files.items()))


def _counts(tally: Tally) -> dict[str, int]:
    return {name: value for name, value in vars(tally).items() if isinstance(value, int)}


def _jsonable(sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {str(token): amount for token, amount in value.items()} if isinstance(value, Mapping) else value
        for name, value in sampling.items()
    }
