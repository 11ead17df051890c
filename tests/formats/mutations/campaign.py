"""Thousands of damaged files, each by its number: `scripts/mutate` runs this under sanitizers.

usage: scripts/mutate gguf|folder COUNT STATE.json

Goes on behind what STATE.json says was done. A file is loaded in a process that serves some hundreds of them; one that
ends it, takes ten minutes, raises what is no error of ours, or makes the process grow is told by its number,
and so is how to see it again. Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from transformers.initialization import no_init_weights

from formats.mutations.subjects import KINDS_OF_SUBJECTS, Subject, load
from paceline.console import progress

_AT_ONCE = 500  # files of a process
_SECONDS = 600  # of a file, on a machine however busy
_GROWTH = 256 << 10  # KiB that a process may grow by: sanitizers keep what was freed for a while


class Told:
    """What a process tells its parent in shared memory: the number at hand, files loaded, and what went wrong."""

    _FORM = struct.Struct("<qqi")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 << 16)

    def say(self, number: int, loaded: int, words: str = "") -> None:
        """From the process."""
        raw = words.encode()[-60_000:]
        self._memory[: self._FORM.size + len(raw)] = self._FORM.pack(number, loaded, len(raw)) + raw

    def heard(self) -> tuple[int, int, str]:
        """In the parent."""
        number, loaded, size = self._FORM.unpack(self._memory[: self._FORM.size])
        return number, loaded, bytes(self._memory[self._FORM.size : self._FORM.size + size]).decode(errors="replace")


def main() -> int:
    """Exit code."""
    given = _parsed()
    state = _read(given.state)
    with tempfile.TemporaryDirectory(prefix="paceline-mutations-") as name:
        place = Path(name)
        subjects = KINDS_OF_SUBJECTS[given.kind](place)
        if given.only is not None:
            return _see(subjects, given.only, place)
        for subject in subjects:
            assert load(subject.write(place)), f"{subject.name} does not load as it is"
        with progress(f"damaged {given.kind} files", given.count) as bar:
            while state["next"] < given.count:
                bar.update(state["next"])
                _go_on(subjects, state, given.count, place)
                given.state.write_text(json.dumps(state, indent=1), encoding="utf-8")
    print(f"{state['next']} damaged files: {state['loaded']} loaded, {len(state['found'])} not as they should be")
    for found in state["found"]:
        print(f"  {found['number']} ({found['subject']}): {found['words'].strip().splitlines()[-1]}")
    return int(bool(state["found"]))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("kind", choices=list(KINDS_OF_SUBJECTS))
    parser.add_argument("count", type=int)
    parser.add_argument("state", type=Path)
    parser.add_argument("--only", type=int, help="This one again, here and now.", metavar="NUMBER")
    return parser.parse_args()


def _read(path: Path) -> dict[str, Any]:
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"next": 0, "loaded": 0, "found": []}


def _chosen(subjects: list[Subject], number: int) -> tuple[Subject, random.Random]:
    subject = subjects[number % len(subjects)]
    return subject, random.Random(f"{subject.name} {number}")


def _see(subjects: list[Subject], number: int, place: Path) -> int:
    subject, draw = _chosen(subjects, number)
    print(f"{subject.name}: {'loaded' if load(subject.write(place, subject.damaged(draw))) else 'refused'}")
    return 0


def _go_on(subjects: list[Subject], state: dict[str, Any], count: int, place: Path) -> None:
    """Some files more, in a process; up to the first that is not as it should be."""
    told, end = Told(), min(count, state["next"] + _AT_ONCE)
    told.say(state["next"], 0)
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            os.dup2(errors.fileno(), 2)
            os._exit(_serve(subjects, range(state["next"], end), told, place))
        words = _awaited(pid, told)
        number, loaded, said = told.heard()
        if words:
            errors.seek(0)
            said = said or errors.read()[-20_000:].decode(errors="replace")
            subject, _ = _chosen(subjects, number)
            state["found"].append({"number": number, "subject": subject.name, "words": f"{said}\n{words}"})
    state["loaded"] += loaded
    state["next"] = number + 1 if words else end


def _awaited(pid: int, told: Told) -> str:
    """How a process ended, if not well; one that stays with a file for too long is ended."""
    before, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return "" if code == 0 else f"the process ended with {code}"
        number = told.heard()[0]
        if number != before:
            before, since = number, time.monotonic()
        if time.monotonic() - since > _SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"no end after {_SECONDS} s"
        time.sleep(0.01)


def _serve(subjects: list[Subject], numbers: range, told: Told, place: Path) -> int:
    torch.set_num_threads(1)
    loaded, peak = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        told.say(number, loaded)
        subject, draw = _chosen(subjects, number)
        try:
            with no_init_weights():  # random ones, before those of the file: a third of the time
                loaded += load(subject.write(place, subject.damaged(draw)))
        except BaseException:  # a panic of tokenizers is no Exception
            told.say(number, loaded, traceback.format_exc())
            return 3
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        if grown > _GROWTH:
            told.say(number, loaded, f"the process grew by {grown} KiB")
            return 4
    told.say(numbers.stop - 1, loaded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
