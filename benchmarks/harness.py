"""A multiple-choice task in lm-evaluation-harness: its model `hf` beside ours, on the bundled target grown to 134 M.

usage: python benchmarks/harness.py [--docs 12] [--shots 5] [--batch 8] [--rounds 2] [--json FILE]

Needs `pip install "paceline[eval]" accelerate`. A document is a held-out spoken command with its seven intents, behind
--shots solved ones, the same for all as the harness has them, or none. Requests are the harness's own, one for each
choice. Both models have the same weights in bfloat16 and take turns; ours forgets what it has read before each round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from goal import Goal, print_goals
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

import paceline
from paceline.bundled import COMMANDS, DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, show, write_json
from paceline.lmeval import PacelineLM
from paceline.model.pretrained import read_model
from paceline.report.fields import Command, read_commands

REACH = 3.0  # times as fast


def requests_of(docs: Sequence[Command], shots: Sequence[Command]) -> list[Instance]:
    """One request for each choice of each document."""
    intents = sorted({command.intent for command in [*docs, *shots]})
    solved = "".join(f'{shot.prompt} {{"intent": "{shot.intent}"}}\n\n' for shot in shots)
    return [
        Instance("loglikelihood", {}, (f'{solved}{doc.prompt} {{"intent":', f' "{intent}"'), index)
        for index, doc in enumerate(docs)
        for intent in intents
    ]


def compared(models: dict[str, Any], requests: list[Instance], rounds: int) -> dict[str, Any]:
    """Seconds of each model, round by round, and how far their answers are apart, in nats."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    answers: dict[str, list[tuple[float, bool]]] = {}
    for _ in range(rounds):
        for name, model in models.items():
            if isinstance(model, PacelineLM):
                model.llm.runtime.thread.call(model.llm.target.decoder.pool.forget_prefixes)  # type: ignore[attr-defined]
            started = time.perf_counter()
            answers[name] = model.loglikelihood(requests, disable_tqdm=True)
            seconds[name].append(time.perf_counter() - started)
    apart = [abs(one[0] - other[0]) for one, other in zip(*answers.values(), strict=True)]
    return {"seconds": seconds, "apart": max(apart)}


def main() -> None:
    """Measure, show, and say what is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=int, default=12)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="of hf; ours takes as many rows as a forward has")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    commands = read_commands(COMMANDS)
    docs, shots = commands[:: len(commands) // args.docs][: args.docs], commands[7::21][: args.shots]
    words = str(bundled_path(DEFAULT_TARGET))
    small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))
    grown = inflate(small, SIZES["134m"])
    table = Table(
        "A multiple-choice task, 134 M, bfloat16", ("shots", "requests", "hf, s", "ours, s", "times", "apart")
    )
    goals, results = [], {}
    with paceline.load(grown, tokenizer=words, drafters="none", cache_tokens=8192) as llm:
        theirs = HFLM(grown, tokenizer=AutoTokenizer.from_pretrained(words), batch_size=args.batch, device="cpu")
        models = {"hf": theirs, "ours": PacelineLM(llm)}
        for count in dict.fromkeys((0, args.shots)):
            requests = requests_of(docs, shots[:count])
            found = results[count] = compared(models, requests, args.rounds)
            hf, ours = (median(found["seconds"][name]) for name in models)
            figures = (f"{hf:.2f}", f"{ours:.2f}", f"{hf / ours:.1f}", f"{found['apart']:.3f}")
            table.rows.append((str(count), str(len(requests)), *figures))
            goals.append(Goal(f"{REACH:g} times hf with {count} shots", f"{hf / ours:.1f}", hf / ours >= REACH))
    show(table)
    print_goals(goals)
    write_json(args.json, {"results": results})


if __name__ == "__main__":
    main()
