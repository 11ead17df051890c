"""From the start of a process to its first token: Paceline with and without kept proofs, beside transformers.

Every sample is a process of its own. Files are in the page cache: the model was read before, by an untimed process of
each kind. Paceline's own cache is a temporary folder, empty for a first load and left by one for a later load.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from paceline.bench.timing import Ratio, ratio
from paceline.console import Table
from paceline.errors import ModelError

PROMPT = "Once upon a time"
_OURS = """
import sys
import paceline

llm = paceline.LLM(sys.argv[1], dtype=sys.argv[2])
llm.generate(sys.argv[3], max_tokens=1)
print(f"token {llm.target.memory()['peak_bytes']}", flush=True)
"""
_THEIRS = """
import resource
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=sys.argv[2])
inputs = AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[3], return_tensors="pt")
model.generate(**inputs, max_new_tokens=1, min_new_tokens=1, do_sample=False)
unit = 1 if sys.platform == "darwin" else 1024
print(f"token {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}", flush=True)
"""
TRANSFORMERS, FIRST, LATER = "transformers", "paceline, first time", "paceline, from then on"
NAMES = (TRANSFORMERS, FIRST, LATER)


@dataclass
class LoadRun:
    """Seconds from the start of a process to its first token, and its peak bytes by then, by contender and round."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})
    peak_bytes: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def beside(self, name: str) -> Ratio:
        """A contender's seconds over those of transformers."""
        return ratio(self.seconds[name], self.seconds[TRANSFORMERS])

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        ratios = {name: self.beside(name).as_dict() for name in (FIRST, LATER)}
        return {"seconds": self.seconds, "peak_bytes": self.peak_bytes, "beside_transformers": ratios}


def bench_load(model: str, dtype: str, rounds: int, advance: Callable[[], None]) -> LoadRun:
    """Rounds of all contenders in turns, after one that is not counted.

    Raises:
        ModelError: a process ended without a token.
    """
    run = LoadRun()
    for index in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="paceline-bench-") as folder:
            for name in NAMES:
                seconds, peak = _first_token(name, [model, dtype, PROMPT], {"PACELINE_CACHE": folder})
                if index:
                    run.seconds[name].append(seconds)
                    run.peak_bytes[name].append(peak)
                advance()
    return run


def _first_token(name: str, arguments: list[str], setting: Mapping[str, str]) -> tuple[float, int]:
    """Seconds until a process says that it has a token, and its peak bytes by then."""
    code = _THEIRS if name == TRANSFORMERS else _OURS
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        command = [sys.executable, "-c", code, *arguments]
        with subprocess.Popen(
            command, env={**os.environ, **setting}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("token ")), None)
            seconds = time.perf_counter() - started
        errors.seek(0)
        if line is None or process.returncode:
            raise ModelError(f"{name} gave no token: {(errors.read().strip().splitlines() or ['no error'])[-1]}")
    return seconds, int(line.split()[1])


def num_parameters(model: str) -> int:
    """Parameters of a model, counted from its configuration; tied ones count once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        found = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    return sum(weight.numel() for weight in found.parameters())


def load_table(model: str, run: LoadRun) -> Table:
    """Medians, and how they compare."""
    table = Table(
        f"{Path(model).name}: from the start of a process to its first token",
        ["", "seconds", "fastest", "slowest", "beside transformers", "peak MB"],
        [],
    )
    for name in NAMES:
        seconds = run.seconds[name]
        table.rows.append(
            [
                name,
                f"{median(seconds):.2f}",
                f"{min(seconds):.2f}",
                f"{max(seconds):.2f}",
                "" if name == TRANSFORMERS else str(run.beside(name)),
                f"{median(run.peak_bytes[name]) / 1e6:.0f}",
            ]
        )
    return table
