"""Texts decoded plainly, with the bundled draft model and with a block head, on the bundled target grown.

usage: python benchmarks/heads.py [--head FOLDER] [--size 134m|1b] [--tokens 96] [--rounds 3] [--prompts N]
       [--json FILE]

The head is grown with the target, its function unchanged; without --head it is the bundled one. Each of the bundled
story prompts is decoded greedily and at temperature 1, by each way in turns in an order drawn anew, and every output
is compared with plain decoding's. Ways without a number are paced, each by a pacer of its own, which learns over the
rounds. Those of so many nodes draft as many at every step: they say how good drafts are and not what they bring.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from goal import Goal, print_goals
from stories import AGAIN, CHAIN, MODEL, MODEL_CHAIN, PLAIN, decoded, table_of, text

import paceline
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, block_head_of, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import progress, show, write_json
from paceline.drafters import make
from paceline.engine.ports import Pacer
from paceline.heads.formats.speculators_dspark import read_head
from paceline.heads.inflating import inflate_head
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table

REACH = {"134m": 2.8, "1b": 3.5}  # times plain, greedily
HEAD, HEAD_NODES = "block head", "block head, 7 nodes"


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


def goals(size: str, greedy: dict[str, Any], sampled: dict[str, Any]) -> list[Goal]:
    """The lines to reach."""
    head, cool = greedy[HEAD]["x plain"], sampled[HEAD]["x plain"]
    share = greedy[HEAD]["ms a proposal"] / greedy[PLAIN]["ms a step"]
    found = [
        Goal(f"block head, greedy: at least {REACH[size]} x plain", text(head), head["value"] >= REACH[size]),
        Goal("the same at temperature 1: at least 0.85 of it", text(cool), cool["value"] >= 0.85 * head["value"]),
        Goal("a proposal: at most 15 % of a plain step", f"{share:.0%}", share <= 0.15),
    ]
    for name, figures in (("greedy", greedy), ("temperature 1", sampled)):
        times = figures[HEAD_NODES]["tokens a step"] / figures[MODEL_CHAIN]["tokens a step"]
        what = f"tokens a step with 7 nodes, {name}: at least 1.15 x those of the draft model's chain of 7"
        found.append(Goal(what, f"{times:.2f} x", times >= 1.15))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, default=block_head_of(DEFAULT_TARGET))
    parser.add_argument("--size", choices=list(SIZES), default="134m")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, help="of the stories, at most")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with progress(f"growing the target to {args.size}"):
        llm, drafters = loaded(args.size, args.head)
    with llm:
        found = {name: decoded(llm, ways(llm, drafters), t, args) for name, t in (("greedy", 0.0), ("T = 1", 1.0))}
        numerics = llm.target.numerics()
    for name, figures in found.items():
        show(table_of(f"{args.size}, stories, {name}: {args.tokens} tokens, {args.rounds} rounds", figures))
    reached = goals(args.size, *found.values())
    print_goals(reached)
    write_json(args.json, {**found, "goals": [goal.as_dict() for goal in reached], "numerics": numerics})


if __name__ == "__main__":
    main()
