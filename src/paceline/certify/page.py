"""A certificate as one HTML file that loads nothing; the JSON object lies within it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.certify.certificate import unexercised, unshown
from paceline.certify.rendering import render


def page(found: Mapping[str, Any]) -> str:
    """The HTML of a certificate's JSON object. All text is escaped: prompts and names are not ours."""
    return render(
        "template.html",
        found,
        claim(found),
        total=found["bytes"]["total"],
        audit=found["law"]["audit"],
        drawn=sum(draws["tokens"] for draws in found["law"]["draws"]),
        caught=sum(control["is_caught"] for control in found["controls"]),
        grid=_grid(found["bytes"]),
        unshown=unshown(found["bytes"]),
        unexercised=unexercised(found["bytes"]),
    )


def claim(found: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    total, audit = found["bytes"]["total"], found["law"]["audit"]
    if found["verdict"] == "PASS":
        return (
            f"In {found['bytes']['shown_decisions']:,} decisions speculative decoding chose plain decoding's tokens, "
            f"from logits of the same bits. Plain decoding follows the fp32 reference in {audit['decisions']:,} greedy "
            "decisions, and its samples the exact probabilities. Every planted fault was found."
            + "".join(f" {text}" for text in _caveats(unshown(found["bytes"])))
        )
    if found["verdict"] == "VOID":
        return f"Nothing was found, but {' and '.join(_voids(found))}."
    wrong = []
    if not found["bytes"]["is_equal"]:
        bits, tokens = (total["decisions"] - total[name] for name in ("equal_bits", "equal_tokens"))
        wrong.append(f"of {total['decisions']:,} decisions {bits:,} rest on other logit bits than plain decoding's")
        wrong.append(f"{tokens:,} are other tokens")
        if not total["accepted_draft_tokens"]:
            wrong.append("no draft was accepted, so that little was compared")
    if not found["law"]["is_right"]:
        wrong.append("plain decoding does not follow the reference")
    points = [point["what"] for point in found["verification"] if point["is_required"] and not point["is_equal"]]
    if points:
        wrong.append(f"it is not the certificate that was verified: other {', other '.join(points)}")
    text = "; ".join(wrong)
    return f"{text[0].upper()}{text[1:]}."


def _caveats(names: list[str]) -> list[str]:
    return [f"Not shown, since what they are about did not happen: {'; '.join(names)}."] if names else []


def _voids(found: Mapping[str, Any]) -> list[str]:
    """Why a certificate is void."""
    faults = ", ".join(control["name"] for control in found["controls"] if not control["is_caught"])
    rows = "; ".join(unexercised(found["bytes"]))
    reasons = [f"neither was a planted fault: {faults}"] if faults or not found["controls"] else []
    return reasons + ([f"pacing was not exercised, no draft being verified in these rows: {rows}"] if rows else [])


def _grid(compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    cells = {(cell["way"], cell["case"]): cell for cell in compared["cells"]}
    rows = []
    for way in compared["ways"]:
        own = [cells.get((way["name"], case["name"])) for case in compared["cases"]]
        some = [cell for cell in own if cell]
        counts = {
            "accepted": sum(c["accepted_draft_tokens"] for c in some),
            "drafted": sum(c["draft_tokens"] for c in some),
        }
        rows.append({**way, "cells": own, **counts})
    return rows
