"""A head that meets a new kind of text while it serves: how far it comes, and what requests took meanwhile.

usage: python benchmarks/learning.py PROMPTS TRAINED [--size 134m] [--requests 300] [--tokens 100] [--json FILE]

PROMPTS is a file as `paceline train` reads it, TRAINED the head that was trained on it. The bundled target and both
heads are grown. One user asks for stories first and then for continuations of PROMPTS, one request at a time with a
pause between them, under the pacer, with learning on. Prompts that training held out are decoded at the end, seven
nodes a step: by the bundled head as it was, as it has learnt, and by the one that was trained.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from goal import Goal, print_goals

import paceline
from paceline.bench.pacer_summary import guard_of
from paceline.bench.tasks import read_tasks
from paceline.bundled import DEFAULT_TARGET, block_head_of, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, progress, show, write_json
from paceline.drafters import make
from paceline.heads.formats.speculators_dspark import read_head
from paceline.heads.inflating import inflate_head
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table
from paceline.text.prompt_sets import read_prompt_set
from paceline.training.data import Question, questions_of

USER, NODES, STORIES = "a user", 7, 20
HEATS = (0.0, 0.7, 1.0)  # of requests, by turns
PAUSE = 0.02  # seconds between requests, in which a server learns
SHARE = 0.95  # of the trained head's tokens a step


def loaded(size: str) -> tuple[LLM, Callable[[Path, bool], Any]]:
    """The grown target, and what makes a drafter over a grown head, which learns or does not."""
    small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))

    def drafter(folder: Path, learn: bool) -> Any:
        return make("block", path=inflate_head(read_head(folder), small.config, SIZES[size]), learn=learn)

    words = str(bundled_path(DEFAULT_TARGET))
    return paceline.load(inflate(small, SIZES[size]), tokenizer=words, drafters="none", cache_tokens=8192), drafter


def served(llm: LLM, drafter: Any, prompts: Sequence[Sequence[int]], pacer: Any, tokens: int) -> list[Any]:
    """Statistics of requests of one user, one after the other."""
    found = []
    with progress("serving", len(prompts)) as bar:
        for number, ids in enumerate(prompts):
            how: Any = {"max_tokens": tokens, "temperature": HEATS[number % len(HEATS)], "seed": number}
            out = llm.generate(list(ids), drafters=[drafter], pacer=pacer, tenant=USER, ignore_eos=True, **how)
            found.append(out.stats)
            time.sleep(PAUSE)
            bar()
    return found


def tokens_a_step(stats: Sequence[Any]) -> float:
    """Over all requests."""
    return float(sum(s.num_emitted_tokens for s in stats) / sum(s.num_steps for s in stats))


def taken(questions: Sequence[Question], count: int) -> list[tuple[int, ...]]:
    """So many prompts, again from the first where there are fewer."""
    return [questions[i % len(questions)].ids for i in range(count)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--size", choices=list(SIZES), default="134m")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--judged", type=int, default=30, help="held-out requests")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PACELINE_CACHE"] = cache  # nothing that was learnt before
        found = run(args)
    show(found.pop("table"))
    print_goals(goals := found.pop("goals"))
    write_json(args.json, {**found, "goals": [goal.as_dict() for goal in goals]})


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve, then judge."""
    llm, drafter = loaded(args.size)
    bundled = block_head_of(DEFAULT_TARGET)
    assert bundled is not None
    with llm:
        target = llm.target
        texts = [(prompt.category, prompt.text) for prompt in read_prompt_set(args.prompts).prompts]
        questions = questions_of(llm, texts, 256)
        asked = taken([q for q in questions if not q.is_held_out], args.requests)
        judged = taken([q for q in questions if q.is_held_out], args.judged)
        stories = [llm.encode(t.prompt) for t in read_tasks(None) if t.task.startswith("story")]
        before = [stories[i % len(stories)] for i in range(STORIES)]
        pacer = llm.runtime.thread.call(lambda: AdaptivePacer(cost_table(target, "")))
        learning = drafter(bundled, True)
        stats = served(llm, learning, [*before, *asked], pacer, args.tokens)[STORIES:]
        counts = dict(learning.learnt())
        heads = {"as it was": drafter(bundled, False), "has learnt": learning}
        heads |= {"was trained": drafter(args.trained, False)}
        taus = {
            way: tokens_a_step(served(llm, head, judged, FixedPacer(NODES), args.tokens)) for way, head in heads.items()
        }
    return summary(stats, counts, taus)


def summary(stats: Sequence[Any], counts: dict[str, int], taus: dict[str, float]) -> dict[str, Any]:
    """The table, the lines, and all figures."""
    guard = guard_of([one.pacing for one in stats])
    share = taus["has learnt"] / taus["was trained"]
    table = Table(f"tokens a step of {NODES} nodes on held-out prompts", ("the head that", "tokens a step"))
    table.rows += [(way, f"{tau:.2f}") for way, tau in taus.items()]
    table.notes.append(", ".join(f"{name} {count}" for name, count in counts.items()))
    goals = [
        Goal(f"at least {SHARE} of the trained head's tokens a step", f"{share:.2f}", bool(share >= SHARE)),
        Goal(
            f"none of {guard.num_runs} requests takes longer than the guard's bound",
            f"{guard.num_over_bound} over it",
            guard.num_over_bound == 0,
        ),
    ]
    traffic = {part: tokens_a_step(stats[i : i + 50]) for i in range(0, len(stats), 50) for part in (f"from {i + 1}",)}
    return {"table": table, "goals": goals, "tokens_a_step": taus, "counts": counts, "while_serving": traffic}


if __name__ == "__main__":
    main()
