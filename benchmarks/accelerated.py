"""`paceline.accelerate` beside the model's own generate: the prompts of `bench decode`, on the bundled target grown.

usage: python benchmarks/accelerated.py [--size 134m|1b] [--tokens 96] [--limit 2] [--temperature 0] [--json FILE]

Each prompt is decoded once by each, in an order that changes from prompt to prompt: a second time Paceline would know
it. Whole calls of `generate` with the same arguments are timed, transformers' preparation included, the prompt of
both read from nothing. Each has the bundled draft model; `assisted` is transformers with it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from goal import Goal, print_goals
from transformers import GenerationConfig
from transformers.utils import logging

import paceline
from paceline.bench.prompting import encode_prompts
from paceline.bench.timing import timed
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, progress, show, write_json
from paceline.model.pretrained import read_model
from paceline.text.prompt_sets import read_prompt_set

REACH = 2.5  # times the model's own generate, the median over prompts
OWN, ASSISTED, OURS = "generate", "assisted", "accelerate"
Way = Callable[[torch.Tensor], torch.Tensor]


def loaded(size: str) -> tuple[Any, Any]:
    """The grown target in bfloat16, accelerated with the bundled draft model, and this one."""
    small, draft = (read_model(name, torch.bfloat16, torch.device("cpu")) for name in (DEFAULT_TARGET, DEFAULT_DRAFT))
    model: Any = inflate(small, SIZES[size])
    for one in (model, draft):
        one.generation_config = GenerationConfig(pad_token_id=0)  # nothing ends before the limit
    words = str(bundled_path(DEFAULT_TARGET))
    return paceline.accelerate(model, tokenizer=words, draft_model=DEFAULT_DRAFT, cache_tokens=8192), draft


def ways(model: Any, draft: Any, args: Any) -> dict[str, Way]:
    """How a prompt is gone on with, by name."""
    how: dict[str, Any] = {
        "max_new_tokens": args.tokens,
        "do_sample": args.temperature > 0,
        "temperature": args.temperature or None,
    }
    how |= {"top_k": 0} if args.temperature else {}
    own = partial(type(model).generate, model)

    def way(generate: Callable[..., Any], **more: Any) -> Way:
        return lambda ids: generate(ids, attention_mask=torch.ones_like(ids), **how, **more)

    return {OWN: way(own), ASSISTED: way(own, assistant_model=draft), OURS: way(model.generate)}


def measured(model: Any, draft: Any, args: Any) -> list[dict[str, Any]]:
    """Of each prompt its category, the seconds of each way, and where the tokens first part from transformers'."""
    prompts = read_prompt_set("bundled", args.limit).prompts
    encoded = encode_prompts(model.generate.llm, prompts, args.tokens).prompts
    rows, found = ways(model, draft, args), []
    orders = itertools.cycle(itertools.permutations(rows))
    with progress("decoding", len(encoded)) as advance:
        for way in rows.values():
            way(torch.arange(7, 40)[None])
        for one in encoded:
            ids = torch.tensor([one.ids])
            done = {name: timed(partial(rows[name], ids)) for name in next(orders)}
            parts = (done[OWN][0] != done[OURS][0]).nonzero()
            agreed = int(parts[0, 1]) - ids.shape[1] if len(parts) else args.tokens
            seconds = {name: took for name, (_, took) in done.items()}
            found.append({"category": one.prompt.category, "seconds": seconds, "agreed": agreed})
            advance()
    return found


def times(rows: list[dict[str, Any]], name: str) -> float:
    """How many times sooner than the model's own generate, the median over prompts."""
    ratios = sorted(row["seconds"][OWN] / row["seconds"][name] for row in rows)
    return (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2


def table_of(rows: list[dict[str, Any]], args: Any) -> Table:
    """One line per kind of prompt, and one for all."""
    title = f"{DEFAULT_TARGET} grown to {args.size}, bfloat16, temperature {args.temperature:g}, {args.tokens} tokens"
    table = Table(title, ("prompts", "number", "x generate", "assisted, x generate", "tokens as generate's"))
    kinds = dict.fromkeys(row["category"] for row in rows)
    for kind in (*kinds, "all"):
        some = [row for row in rows if kind in (row["category"], "all")]
        agreed = sum(row["agreed"] for row in some) / len(some)
        cells = [f"{times(some, OURS):.2f}", f"{times(some, ASSISTED):.2f}", f"{agreed:.0f} of {args.tokens}"]
        table.rows.append((kind, str(len(some)), *cells))
    table.notes.append("Whole calls, medians over prompts. In bfloat16 two ways of rounding part at near ties.")
    return table


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=SIZES, default="134m")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--limit", type=int, default=2)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.set_verbosity_error()
    rows = measured(*loaded(args.size), args)
    show(table_of(rows, args))
    write_json(args.json, {"kind": "accelerate", "tokens": args.tokens, "rows": rows})
    found = times(rows, OURS)
    print_goals([Goal(f"at least {REACH:g} times the model's own generate", f"{found:.2f}", found >= REACH)])


if __name__ == "__main__":
    main()
