"""Which architectures of transformers decode exactly, each as a tiny random model, each in a process of its own.

usage: scripts/coverage sweep OUT.jsonl [NAME ...] [--changed] [--again VERDICT ...]
       scripts/coverage one NAME ...          the verdicts, here and now
       scripts/coverage pictures [NAME ...]    the verdicts on pictures in prompts, kept in docs/pictures.jsonl
       scripts/coverage certify [NAME ...]     `paceline certify` on a model of each family, into docs/certified.jsonl
       scripts/coverage table OUT.jsonl       writes docs/coverage.md and the verdicts that `--changed` goes by

A sweep goes on where it stopped: the last line of a name counts, and names that have one are left out but for those
of a verdict given after `--again`. Exit code 1 with `--changed`: a verdict is another than docs/coverage.jsonl says;
of `certify`: a certificate does not pass.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paceline.console import progress
from sweeping.certifying import certified, family_of
from sweeping.entries import MAPPINGS, entries
from sweeping.families import FAMILIES
from sweeping.judge import judge
from sweeping.pictures import judge_pictures
from sweeping.table import KEPT, keep_certified, keep_pictures, kept_verdicts, read_sweep, write_page

Judge = Callable[[str], dict[str, Any]]
_LIMIT = 300  # seconds of one entry


def main() -> int:
    """Exit code."""
    given = _parsed()
    if given.command == "table":
        write_page(read_sweep(given.out))
        return 0
    if given.command == "pictures":
        keep_pictures([_judged(name, judge_pictures) for name in given.names or MAPPINGS["image-text-to-text"]])
        return 0
    if given.command == "certify":
        return _certify(given.names or [family.name for family in FAMILIES], given.seconds)
    if given.command == "one":
        for name in given.names:
            print(json.dumps(judge(name)))
        return 0
    _sweep(given)
    return _changed(read_sweep(given.out)) if given.changed else 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/coverage", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("sweep")
    sweep.add_argument("out", type=Path)
    sweep.add_argument("names", nargs="*")
    sweep.add_argument("--changed", action="store_true")
    sweep.add_argument("--again", nargs="+", default=[])
    commands.add_parser("pictures").add_argument("names", nargs="*")
    certify = commands.add_parser("certify")
    certify.add_argument("names", nargs="*")
    certify.add_argument("--seconds", type=float, default=10.0, help="of each; the least coverage is done in any case")
    commands.add_parser("one").add_argument("names", nargs="+")
    commands.add_parser("table").add_argument("out", type=Path)
    return parser.parse_args()


def _sweep(given: argparse.Namespace) -> None:
    found = read_sweep(given.out) if given.out.exists() else {}
    done = {name for name, line in found.items() if line["verdict"] not in given.again}
    wanted = [name for name in given.names or entries() if name not in done]
    with given.out.open("a", encoding="utf-8") as out, progress("entries", len(wanted)) as bar:
        for name in wanted:
            out.write(json.dumps(_judged(name, judge)) + "\n")
            out.flush()
            bar()


def _judged(name: str, judged: Judge) -> dict[str, Any]:
    """The verdict of a process of its own: one that dies or does not end is a crash."""
    fork = multiprocessing.get_context("fork")  # what this process has imported need not be imported again
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_tell, args=(name, judged, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(_LIMIT):
            return {"name": name, "verdict": "crash", "why": f"no end after {_LIMIT} s"}
        return dict(ours.recv())
    except EOFError:
        process.join()
        return {"name": name, "verdict": "crash", "why": f"the process died: exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _tell(name: str, judged: Judge, pipe: Connection) -> None:
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    pipe.send(judged(name))


def _certify(names: list[str], seconds: float) -> int:
    """Certify models one after the other; 1 if any does not pass."""
    families, found = [family_of(name) for name in names], []
    with progress("certificates", len(families)) as bar:
        for family in families:
            found.append(certified(family, seconds))
            keep_certified(found[-1:])
            bar()
    failed = [line for line in found if line["verdict"] != "PASS"]
    for line in failed:
        print(f"{line['name']}: {line['verdict']} ({line['why']})")
    return int(bool(failed))


def _changed(found: dict[str, dict[str, Any]]) -> int:
    """Tell which verdicts differ from those kept; 1 if any does."""
    kept = kept_verdicts()
    changed = [name for name, line in found.items() if kept.get(name) != line["verdict"]]
    for name in changed:
        print(f"{name}: {found[name]['verdict']} ({found[name]['why']}), where {KEPT.name} says {kept.get(name)}")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
