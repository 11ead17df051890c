"""Does the promise hold? Intents of held-out spoken commands (SNIPS), calibrated and tested on many random splits.

usage: python benchmarks/deciding.py CORPORA [--errors 0.02 0.03 0.05] [--splits 100] [--share 0.5 0.7] [--json FILE]

The bundled model was trained on SNIPS' training files; these are its validation files, 697 commands that differ. Each
is asked once for the probability of its seven intents. A split calibrates on a share of the commands drawn anew, and
counts what is wrong among what it then answers of the others. The promise is held on a split if that is no more than
was promised, or if nothing is answered, since no threshold could be proved. What is promised is a rate; what is counted
is a sample of it, on which chance can be against a promise that holds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from goal import Goal, print_goals

import paceline
from paceline.console import Table, show, write_json
from paceline.deciding.choices import likeliest, tempered
from paceline.deciding.learning import Example, learn
from paceline.errors import ConfigError

CONFIDENCE = 0.95
REACH = 95  # of 100 splits


@dataclass(frozen=True)
class Split:
    """What came of one split."""

    coverage: float  # of the commands that were not calibrated on; 0 where no threshold was proved
    error: float  # among those answered

    @classmethod
    def of(cls, examples: list[Example], share: float, error: float, seed: int) -> Split:
        """Calibrate on a share of the examples, and test on the others."""
        shuffled = list(examples)
        random.Random(seed).shuffle(shuffled)
        count = int(share * len(shuffled))
        try:
            learnt = learn(shuffled[:count], error, CONFIDENCE, seed)
        except ConfigError:
            return cls(0.0, 0.0)
        judged = []
        for example in shuffled[count:]:
            chances = tempered(example.logprobs, learnt.temperature)
            best = likeliest(chances)
            if chances[best] >= learnt.threshold:
                judged.append(best != example.label)
        return cls(len(judged) / (len(shuffled) - count), mean(judged) if judged else 0.0)


def commands(folder: Path) -> Iterator[tuple[str, str]]:
    """Commands and their intents, each once."""
    seen = set()
    for path in sorted(folder.glob("snips/validate_*.gz")):
        raw = gzip.decompress(path.read_bytes())
        try:
            content = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError:  # one of the files is Latin-1
            content = json.loads(raw.decode("latin-1"))
        ((intent, examples),) = content.items()
        for example in examples:
            text = " ".join("".join(piece["text"] for piece in example["data"]).split())
            if text not in seen:
                seen.add(text)
                yield text, intent


def asked(folder: Path) -> list[Example]:
    """What the bundled model thinks of each command's intents."""
    pairs = list(commands(folder))
    intents = sorted({intent for _, intent in pairs})
    prompts = [f'Command: {text}\nJSON: {{"intent": "' for text, _ in pairs]
    with paceline.LLM(drafters="none") as llm:
        decided = llm.decide(prompts, intents, tenant="benchmark")
    return [Example(one.logprobs, intent) for one, (_, intent) in zip(decided, pairs, strict=True)]


def main() -> None:
    """Ask, split, show, and say what is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--errors", type=float, nargs="+", default=[0.02, 0.03, 0.05])
    parser.add_argument("--share", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    examples = asked(args.corpora)
    wrong = mean(likeliest(one.logprobs) != one.label for one in examples)
    title = f"{len(examples)} commands, {100 * wrong:.1f} % wrong if all are answered; {args.splits} splits each"
    columns = ("promised", "calibrated on", "held", "coverage, mean", "median", "error, mean", "no threshold")
    table, goals, results = Table(title, columns), [], []
    for error in args.errors:
        for share in args.share:
            splits = [Split.of(examples, share, error, seed) for seed in range(args.splits)]
            held = sum(split.error <= error for split in splits)
            coverage = [split.coverage for split in splits]
            answered = [split.error for split in splits if split.coverage]
            figures: tuple[Any, ...] = (held, mean(coverage), median(coverage), mean(answered or [0.0]))
            row = (str(held), *(f"{100 * figure:.1f} %" for figure in figures[1:]), str(coverage.count(0.0)))
            table.rows.append((f"{100 * error:g} %", str(int(share * len(examples))), *row))
            text = f"{100 * error:g} % promised from {int(share * len(examples))} commands, held"
            goals.append(Goal(text, f"{held} of {args.splits}", held >= REACH * args.splits / 100))
            results.append({"error": error, "share": share, "splits": [vars(split) for split in splits]})
    show(table)
    print_goals(goals)
    write_json(args.json, {"results": results})


if __name__ == "__main__":
    main()
