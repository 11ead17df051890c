"""Continuations scored as one tree, beside forwards of the same model: the bundled target grown to 134 M, bfloat16.

usage: python benchmarks/scoring.py [--prompt 501] [--continuations 4] [--tokens 20] [--rounds 15] [--json FILE]

A prompt of 501 tokens is one of 500 cached ones and the pending one: seven pages, and 52 positions that are copied
from an eighth; 512 fill theirs. A row is read for each token that another one follows. Variants take turns, in an
order drawn anew; medians. A forward's time is that of `Target.dry_run` behind as many positions.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from goal import Goal, print_goals

import paceline
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, show, write_json
from paceline.llm import LLM
from paceline.model.pretrained import read_model

REACH = 1.6  # forwards
FULL = 64  # rows


def loaded() -> LLM:
    """The grown target."""
    small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))
    words = str(bundled_path(DEFAULT_TARGET))
    return paceline.load(inflate(small, SIZES["134m"]), tokenizer=words, drafters="none", cache_tokens=8192)


def ways(llm: LLM, prompt: list[int], continuations: list[list[int]]) -> dict[str, Callable[[], Any]]:
    """What takes turns."""
    page = 64
    cached = (prompt * 2)[: -(-len(prompt) // page) * page + 1]

    def forward(num_rows: int) -> Callable[[], Any]:
        run = partial(llm.target.dry_run, num_rows, len(prompt) - 1)
        return partial(llm.runtime.thread.call, run)

    return {
        "a forward of 1 row": forward(1),
        f"a forward of {FULL} rows": forward(FULL),
        "scored together": partial(llm.score, prompt, continuations),
        f"scored together, all {len(cached) - 1} cached": partial(llm.score, cached, continuations),
        "scored one by one": lambda: [llm.score(prompt, [one]) for one in continuations],
        "one of them alone": partial(llm.score, prompt, continuations[:1]),
    }


def timed(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant, round by round; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(rounds + 1):
        for name in random.sample(list(variants), len(variants)):
            started = time.perf_counter()
            variants[name]()
            if index:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure, show, and say what is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=501)
    parser.add_argument("--continuations", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    draw = np.random.default_rng(0).integers(1, 4096, args.prompt + args.continuations * args.tokens).tolist()
    prompt, rest = draw[: args.prompt], draw[args.prompt :]
    continuations = [rest[i : i + args.tokens] for i in range(0, len(rest), args.tokens)]
    with loaded() as llm:
        together = llm.score(prompt, continuations)
        assert together == [llm.score(prompt, [one])[0] for one in continuations]
        seconds = timed(ways(llm, prompt, continuations), args.rounds)
    medians = {name: median(values) for name, values in seconds.items()}
    one, full = medians["a forward of 1 row"], medians[f"a forward of {FULL} rows"]
    table = Table("Scoring, 134 M, bfloat16", ("", "ms", "forwards of 1 row", f"forwards of {FULL} rows"))
    for name, value in medians.items():
        table.rows.append((name, f"{1e3 * value:.1f}", f"{value / one:.2f}", f"{value / full:.2f}"))
    show(table)
    text = f"scoring together takes at most {REACH} times a forward of"
    found = {1: medians["scored together"] / one, FULL: medians["scored together"] / full}
    print_goals([Goal(f"{text} {rows} rows", f"{value:.2f}", value <= REACH) for rows, value in found.items()])
    write_json(args.json, {"seconds": seconds})


if __name__ == "__main__":
    main()
