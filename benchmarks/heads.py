"""Texts decoded plainly, with the bundled draft model and with a block head, on the bundled target grown.

usage: python benchmarks/heads.py [--head FOLDER] [--size 134m|1b] [--tokens 96] [--rounds 3] [--json FILE]

The head is grown with the target, its function unchanged; without --head it is the bundled one. Each of the bundled
story prompts is decoded greedily and at temperature 1, by each way in turns in an order drawn anew, and every output
is compared with plain decoding's. Ways without a number are paced, each by a pacer of its own, which learns over the
rounds. Those of so many nodes draft as many at every step: they say how good drafts are and not what they bring.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from goal import Goal, print_goals

import paceline
from paceline.bench.tasks import read_tasks
from paceline.bench.timing import ratio_of_sums
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, block_head_of, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, progress, show, write_json
from paceline.drafters import make
from paceline.engine.ports import Pacer
from paceline.engine.request import fresh_tenant
from paceline.heads.formats.speculators_dspark import read_head
from paceline.heads.inflating import inflate_head
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table

CHAIN = 7
REACH = {"134m": 2.8, "1b": 3.5}  # times plain, greedily
PLAIN, AGAIN, MODEL, HEAD = "plain", "plain again", "draft model", "block head"
MODEL_CHAIN, HEAD_NODES = "draft model, a chain of 7", "block head, 7 nodes"


def loaded(size: str, folder: Path) -> tuple[LLM, dict[str, Any]]:
    """The grown target, and its drafters by name."""
    small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))
    head = inflate_head(read_head(folder), small.config, SIZES[size])
    words = str(bundled_path(DEFAULT_TARGET))
    llm = paceline.load(inflate(small, SIZES[size]), tokenizer=words, drafters="none", cache_tokens=8192)
    return llm, {
        MODEL: make("model", path=DEFAULT_DRAFT),
        MODEL_CHAIN: make("model", path=DEFAULT_DRAFT, width=1, branch=1, depth=CHAIN),
        HEAD: make("block", path=head),
    }


def ways(llm: LLM, drafters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options of a call by the name of a way; pacers belong to the engine's thread."""
    target = llm.target

    def pacer() -> Pacer:
        return llm.runtime.thread.call(lambda: AdaptivePacer(cost_table(target, "")))

    return {
        PLAIN: {"drafters": "none"},
        AGAIN: {"drafters": "none"},
        MODEL: {"drafters": [drafters[MODEL]], "pacer": pacer()},
        HEAD: {"drafters": [drafters[HEAD]], "pacer": pacer()},
        "both": {"drafters": [drafters[MODEL], drafters[HEAD]], "pacer": pacer()},
        MODEL_CHAIN: {"drafters": [drafters[MODEL_CHAIN]], "pacer": FixedPacer(CHAIN)},
        HEAD_NODES: {"drafters": [drafters[HEAD]], "pacer": FixedPacer(CHAIN)},
        "block head, 14 nodes": {"drafters": [drafters[HEAD]], "pacer": FixedPacer(2 * CHAIN)},
    }


def decoded(llm: LLM, options: dict[str, dict[str, Any]], temperature: float, args: Any) -> dict[str, Any]:
    """Each way's figures: times plain, tokens a step, milliseconds of a step and of a proposal."""
    prompts = [task.prompt for task in read_tasks(None) if task.task.startswith("story")]
    seconds = {way: np.zeros((len(prompts), args.rounds)) for way in options}
    outputs: dict[str, list[Any]] = {way: [] for way in options}
    with progress(f"decoding at temperature {temperature:g}", len(prompts) * args.rounds) as bar:
        for turn in range(args.rounds * len(prompts)):
            number, index = divmod(turn, len(prompts))
            for way in random.Random(turn).sample(list(options), len(options)):
                how = {"temperature": temperature, "max_tokens": args.tokens, "seed": 7, **options[way]}
                output = llm.generate(prompts[index], ignore_eos=True, tenant=fresh_tenant(), **how)
                seconds[way][index, number] = output.stats.decode_seconds
                outputs[way].append(output)
            assert len({outputs[way][-1].token_ids for way in options}) == 1, f"a way changed prompt {index}"
            bar()
    return {
        way: {"x plain": ratio_of_sums(seconds[PLAIN], taken).as_dict(), **_steps(outputs[way])}
        for way, taken in seconds.items()
    }


def _steps(outputs: list[Any]) -> dict[str, float]:
    """Means over all steps of a way's outputs."""
    stats = [output.stats for output in outputs]
    steps = sum(s.num_steps for s in stats)
    asked = [drafter for s in stats for drafter in s.drafters.values() if drafter.num_proposals]
    proposals = sum(drafter.num_proposals for drafter in asked)
    return {
        "tokens a step": sum(s.num_emitted_tokens for s in stats) / steps,
        "ms a step": 1e3 * sum(s.decode_seconds for s in stats) / steps,
        "ms a proposal": 1e3 * sum(drafter.seconds for drafter in asked) / max(proposals, 1),
    }


def goals(size: str, greedy: dict[str, Any], sampled: dict[str, Any]) -> list[Goal]:
    """The lines to reach."""
    head, cool = greedy[HEAD]["x plain"], sampled[HEAD]["x plain"]
    share = greedy[HEAD]["ms a proposal"] / greedy[PLAIN]["ms a step"]
    found = [
        Goal(f"block head, greedy: at least {REACH[size]} x plain", _text(head), head["value"] >= REACH[size]),
        Goal("the same at temperature 1: at least 0.85 of it", _text(cool), cool["value"] >= 0.85 * head["value"]),
        Goal("a proposal: at most 15 % of a plain step", f"{share:.0%}", share <= 0.15),
    ]
    for name, figures in (("greedy", greedy), ("temperature 1", sampled)):
        times = figures[HEAD_NODES]["tokens a step"] / figures[MODEL_CHAIN]["tokens a step"]
        what = f"tokens a step with 7 nodes, {name}: at least 1.15 x those of the draft model's chain of 7"
        found.append(Goal(what, f"{times:.2f} x", times >= 1.15))
    return found


def _text(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f}) x"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, default=block_head_of(DEFAULT_TARGET))
    parser.add_argument("--size", choices=list(SIZES), default="134m")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with progress(f"growing the target to {args.size}"):
        llm, drafters = loaded(args.size, args.head)
    with llm:
        found = {name: decoded(llm, ways(llm, drafters), t, args) for name, t in (("greedy", 0.0), ("T = 1", 1.0))}
        numerics = llm.target.numerics()
    for name, figures in found.items():
        columns = ("way", "x plain", "tokens a step", "ms a step", "ms a proposal")
        rows = [
            (way, _text(of["x plain"]), *(f"{of[column]:.2f}" for column in columns[2:])) for way, of in figures.items()
        ]
        show(Table(f"{args.size}, stories, {name}: {args.tokens} tokens, {args.rounds} rounds", columns, rows=rows))
    reached = goals(args.size, *found.values())
    print_goals(reached)
    write_json(args.json, {**found, "goals": [goal.as_dict() for goal in reached], "numerics": numerics})


if __name__ == "__main__":
    main()
