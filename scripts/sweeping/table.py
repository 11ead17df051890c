"""A sweep as docs/coverage.md, and the verdicts kept beside it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import transformers

from paceline._version import __version__
from sweeping.entries import MAPPINGS
from sweeping.families import FAMILIES

DOCS = Path(__file__).parents[2] / "docs"
PAGE, KEPT = DOCS / "coverage.md", DOCS / "coverage.jsonl"
PICTURES, CERTIFIED = DOCS / "pictures.jsonl", DOCS / "certified.jsonl"
VERDICTS = {
    "exact-native": "exact, native kernels",
    "exact-modules": "exact, the model's own modules",
    "refused": "refused",
    "wrong": "wrong",
    "crash": "crash",
    "not-built": "not built here",
}

Sweep = dict[str, dict[str, Any]]


def read_sweep(file: Path) -> Sweep:
    """By name the last line of a sweep's file; nothing if there is none."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {line["name"]: line for line in lines}


def kept_verdicts() -> dict[str, str]:
    """The verdicts of the sweep that docs/coverage.md shows."""
    return {name: line["verdict"] for name, line in read_sweep(KEPT).items()}


def write_page(found: Sweep) -> None:
    """Write docs/coverage.md and docs/coverage.jsonl."""
    kept = [{name: line[name] for name in ("name", "verdict", "why")} for _, line in sorted(found.items())]
    KEPT.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    _write(found, _swept_now())


def keep_pictures(found: list[dict[str, Any]]) -> None:
    """Keep verdicts on pictures, those of other types as they were, and write the page anew from what is kept."""
    _keep(PICTURES, [{name: line[name] for name in ("name", "verdict", "why")} for line in found])


def keep_certified(found: list[dict[str, Any]]) -> None:
    """Keep certificates in the same way."""
    _keep(CERTIFIED, found)


def _keep(file: Path, found: list[dict[str, Any]]) -> None:
    kept = read_sweep(file) | {line["name"]: line for line in found}
    file.write_text("".join(json.dumps(kept[name]) + "\n" for name in sorted(kept)), encoding="utf-8")
    _write(read_sweep(KEPT), _swept_before())


def _swept_now() -> str:
    day, versions = datetime.now(timezone.utc).strftime("%Y-%m-%d"), f"transformers {transformers.__version__}"
    return f"Swept on {day}: Paceline {__version__}, {versions}, torch {torch.__version__}, float32, one thread."


def _swept_before() -> str:
    """The line that the page has now."""
    return next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("Swept on "))


def _write(found: Sweep, swept: str) -> None:
    PAGE.write_text("\n".join(_page(found, swept)) + "\n", encoding="utf-8")


def _page(found: Sweep, swept: str) -> list[str]:
    return [
        "# Which architectures decode exactly",
        "",
        swept,
        "Made by `scripts/coverage`; do not edit. `.ci/nightly` fails where a verdict has changed.",
        "",
        *_INTRODUCTION,
        "",
        *_counts(found),
        "",
        *(line for name in MAPPINGS for line in _of_mapping(name, found)),
        *_pictures(read_sweep(PICTURES)),
        *_certified(read_sweep(CERTIFIED)),
        *_reasons(found),
    ]


_INTRODUCTION = """\
Each entry is a model type of transformers' mappings, as a tiny random model whose every parameter counts, saved and
loaded as a user would. *Exact* means two things. Greedy text is that of `generate`. And tokens and logits are those of
plain decoding, bit for bit: with random draft trees, at temperatures, in batches whose prompts part after a page, and
from the prefix cache. Prompts are up to three pages of 64 positions long, windows 16. Composite checkpoints are asked
for text here, and for pictures below. *Native* is the path of the kernels in C, *modules* PyTorch's.
What it does not show: trained weights, bfloat16, several threads, long contexts, a GPU.""".splitlines()


def _counts(found: Sweep) -> list[str]:
    rows = ["| | " + " | ".join(MAPPINGS) + " |", "|---|" + "---|" * len(MAPPINGS)]
    for verdict, words in VERDICTS.items():
        counts = [sum(found.get(n, {}).get("verdict") == verdict for n in mapping) for mapping in MAPPINGS.values()]
        rows.append(f"| {words} | " + " | ".join(map(str, counts)) + " |")
    return rows


def _of_mapping(mapping: str, found: Sweep) -> list[str]:
    lines = [f"## {mapping.capitalize()}", "", "| | | |", "|---|---|---|"]
    for verdict, words in VERDICTS.items():
        names = sorted(name for name in MAPPINGS[mapping] if found.get(name, {}).get("verdict") == verdict)
        if names:
            lines += [f"| {words} | {len(names)} | {', '.join(names)} |"]
    return [*lines, ""]


def _pictures(found: Sweep) -> list[str]:
    """Types that take pictures in prompts, and why others do not."""
    lines = ["## Pictures in prompts", "", *_OF_PICTURES, "", "| | | |", "|---|---|---|"]
    for verdict in ("exact", "refused", "wrong", "crash", "not-built"):
        names = [name for name, line in found.items() if line["verdict"] == verdict]
        lines += [f"| {VERDICTS.get(verdict, verdict)} | {len(names)} | {', '.join(names)} |"] if names else []
    refused = {name: line["why"] for name, line in found.items() if line["verdict"] in ("refused", "wrong", "crash")}
    lines += ["", "| refused | why |", "|---|---|"] if refused else []
    return [*lines, *(f"| {name} | {_cell(why)} |" for name, why in refused.items()), ""]


_OF_PICTURES = """\
The same models with one picture and with two in a prompt, by `scripts/coverage pictures`. Greedy tokens are those of
`generate`; tokens and logits with random draft trees, beside each other and from the prefix cache are those of plain
decoding, bit for bit. Processors are made for this and plain, but for those of LLaVA, LLaVA-NeXT, Gemma 3 and Qwen-VL.
*Not built* means that they do not suit the type, or that it does not run here as a tiny model.""".splitlines()


def _certified(found: Sweep) -> list[str]:
    """What `paceline certify` says of one model of each family."""
    lines = ["## Certified", "", *_OF_CERTIFICATES, "", _CERTIFIED_HEAD, "|" + "---|" * 7]
    return [*lines, *(_certificate(found[one.name]) for one in FAMILIES if one.name in found), ""]


def _certificate(line: dict[str, Any]) -> str:
    if line["verdict"] == "crash":
        return f"| {line['family']} | {line['name']} | crash: {_cell(line['why'])} | | | | {line['day']} |"
    faults = f"{line['caught']} of {len(line['faults'])}"
    counts = f"{line['decisions']:,} | {line['audited']:,}, {line['sampled']:,} | {faults}"
    return f"| {line['family']} | {line['name']} | {line['verdict']} | {counts} | {line['day']} |"


_CERTIFIED_HEAD = "| family | model | verdict | decisions | audited, sampled tokens | faults found | on |"
_OF_CERTIFICATES = """\
`paceline certify` on a tiny random model of each family, by `scripts/coverage certify`; texts are read byte by byte.
*Decisions* are tokens of drafted outputs whose logits have plain decoding's bits. *Audited* tokens are greedy ones
beside transformers' own, *sampled* ones were bet on. The last figure is of planted faults. Long contexts are asked for
ten times the length that they were made for, encoder-decoders for what they make of a source.""".splitlines()


def _reasons(found: Sweep) -> list[str]:
    """What is not exact, and why, in the words of the refusal."""
    rest = {name: line for name, line in sorted(found.items()) if not line["verdict"].startswith("exact")}
    counted = Counter(line["verdict"] for line in rest.values())
    lines = [
        "## Why",
        "",
        *(["Not one is wrong and none crashes.", ""] if not counted["wrong"] + counted["crash"] else []),
    ]
    lines += ["| type | verdict | why |", "|---|---|---|"]
    return [*lines, *(f"| {name} | {line['verdict']} | {_cell(line['why'])} |" for name, line in rest.items())]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
