"""Heads of random weights, one of every kind: what the pacer lets them cost, or folders of them to certify.

usage: python benchmarks/random_heads.py [--size 134m] [--requests 8] [--tokens 40] [--rounds 2] [--json FILE]
       python benchmarks/random_heads.py --write FOLDER

Without --write the bundled target is grown, and requests follow each other by turns of plain decoding, of each head
alone and of all of them, each under a pacer of its own that knows nothing at first. Half of the requests are stories
and half can be foretold by nobody. With --write the heads are those of the bundled target as it is, laid out as their
writers do, for `paceline certify --drafters eagle:path=FOLDER/eagle,probe=false`.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from goal import Goal, print_goals
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, PreTrainedModel, Qwen2Config

import paceline
from paceline.bench.pacer import PacedContender, PacerPrompt, PacerSample, decode, fitting_ids
from paceline.bench.pacer_summary import Guard, guard_of
from paceline.bench.row import ROW_TASK, row_tasks
from paceline.bench.tasks import read_tasks
from paceline.bench.timing import Ratio, ratio_of_sums
from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, progress, show, write_json
from paceline.heads.block import BlockHead
from paceline.heads.eagle import Eagle3Head, EagleConfig
from paceline.heads.formats.speculators_dspark import Verifier, write_head
from paceline.heads.medusa import MedusaConfig, MedusaHead
from paceline.heads.mtp import MTPConfig, MTPHead
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table
from paceline.training.recipe import block_config, usual

PLAIN, AGAIN, ALL = "plain", "plain again", "all of them"
ALLOWED, INVESTED = 0.02, 32  # of plain decoding, and in plain steps: what the engine's account may be behind
_SPREAD = 0.02  # of weights


def write_heads(target: PreTrainedModel, folder: Path) -> list[str]:
    """A head of every kind in folders of its own; how each is asked for."""
    for name, write in _WRITERS.items():
        write(target, folder / name)
    return [f"{name}:path={folder / name},probe=false" for name in _WRITERS]


def _block(target: PreTrainedModel, folder: Path) -> None:
    head = _drawn(BlockHead(block_config(usual(target), target)))
    write_head(head, folder, Verifier.of(target))


def _eagle(target: PreTrainedModel, folder: Path) -> None:
    config = EagleConfig(LlamaConfig(**_layers(target)), (), target.config.hidden_size)
    head = _drawn(Eagle3Head(config, 3, False))
    weights = {name.replace("layers.0.", "midlayer."): w for name, w in head.state_dict().items()}
    _write(folder, {**_layers(target), "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama"}, weights)


def _mtp(target: PreTrainedModel, folder: Path) -> None:
    layers = Qwen2Config(**_layers(target))
    head = _drawn(MTPHead(MTPConfig(layers, is_hidden_first=True)))
    weights = {f"mtp_layers.0.{name.removeprefix('layer.')}": w for name, w in head.state_dict().items()}
    layer = {**_layers(target), "model_type": "qwen2"}
    _write(folder, {"speculators_model_type": "mtp", "transformer_layer_config": layer}, weights)


def _medusa(target: PreTrainedModel, folder: Path) -> None:
    size, vocabulary = target.config.hidden_size, target.config.vocab_size
    head = _drawn(MedusaHead(MedusaConfig(4, 1, size, vocabulary)))
    about = {"medusa_num_heads": 4, "medusa_num_layers": 1, "hidden_size": size, "vocab_size": vocabulary}
    _write(folder, about, dict(head.state_dict()))


_WRITERS: dict[str, Callable[[PreTrainedModel, Path], None]] = {
    "block": _block,
    "eagle": _eagle,
    "mtp": _mtp,
    "medusa": _medusa,
}


def _layers(target: PreTrainedModel) -> dict[str, Any]:
    config = target.config
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": 1,
        "max_position_embeddings": config.max_position_embeddings,
    }


def _drawn(head: Any) -> Any:
    """Its matrices drawn at random, the same every time."""
    generator = torch.Generator().manual_seed(0)
    for weight in head.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=_SPREAD, generator=generator)
    return head


def _write(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    whole = {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}
    save_file(whole, folder / "model.safetensors")


def contenders(llm: LLM, specs: Sequence[str]) -> list[PacedContender]:
    """Ways to decode; pacers belong to the engine's thread."""
    target = llm.target

    def paced(name: str, drafters: Sequence[str]) -> PacedContender:
        pacer = llm.runtime.thread.call(lambda: AdaptivePacer(cost_table(target, "")))
        return PacedContender(name, tuple(drafters), pacer)

    plain = [PacedContender(name, (), FixedPacer(0)) for name in (PLAIN, AGAIN)]
    return [*plain, *(paced(spec.partition(":")[0], [spec]) for spec in specs), paced(ALL, specs)]


def measured(llm: LLM, specs: Sequence[str], args: argparse.Namespace) -> dict[str, list[list[PacerSample]]]:
    """Samples of each way, by request and round."""
    known = read_tasks(None)
    stories = [task for task in known if task.task.startswith("story")][: args.requests // 2]
    tasks = [*stories, *row_tasks([t for t in known if t.task == ROW_TASK], args.requests - len(stories))]
    prompts = [PacerPrompt(task, fitting_ids(llm, task, args.tokens)) for task in tasks]
    llm.generate(list(prompts[0].ids), drafters=list(specs), pacer=FixedPacer(3), max_tokens=8)  # what is loaded once
    ways = contenders(llm, specs)
    found: dict[str, list[list[PacerSample]]] = {way.name: [[] for _ in prompts] for way in ways}
    with progress("decoding", args.rounds * len(prompts)) as bar:
        for turn in range(args.rounds * len(prompts)):
            number, index = divmod(turn, len(prompts))
            for way in random.Random(turn).sample(ways, len(ways)):
                found[way.name][index].append(decode(llm, prompts[index], way, str(number), args.tokens))
            bar()
    return found


def report(found: dict[str, list[list[PacerSample]]]) -> tuple[Table, list[Goal]]:
    """What each way came to, and the lines to reach."""
    columns = ("way", "x plain", "worst request", "proposals a request", "over the bound", "above it at most")
    table = Table("heads of random weights, paced", columns)
    seconds = {way: np.array([[s.seconds for s in row] for row in rows]) for way, rows in found.items()}
    num_tokens = sum(len(s.tokens) for row in found[PLAIN] for s in row)
    goals = []
    for way, rows in found.items():
        whole = ratio_of_sums(seconds[PLAIN], seconds[way])
        worst = min(median(one) / median(two) for one, two in zip(seconds[PLAIN], seconds[way], strict=True))
        asked = sum(d["num_proposals"] for row in rows for s in row for d in s.stats["drafters"].values())
        cells = (way, str(whole), f"{worst:.3f}", f"{asked / seconds[way].size:.1f}")
        if way in (PLAIN, AGAIN):
            table.rows.append((*cells, "", ""))
            continue
        guard = guard_of([s.stats["pacing"] for row in rows for s in row])
        table.rows.append((*cells, f"{guard.num_over_bound} of {guard.num_runs}", f"{guard.most_over:.1%}"))
        goals += _goals(way, whole, num_tokens, guard)
    same = all(
        (s.tokens, s.logprobs) == (rows[0].tokens, rows[0].logprobs)
        for way in found.values()
        for row, rows in zip(way, found[PLAIN], strict=True)
        for s in row
    )
    count = sum(len(row) for way in found.values() for row in way)
    goals.append(Goal("every output has plain decoding's tokens and log-probabilities", f"of {count} outputs", same))
    return table, goals


def _goals(way: str, whole: Ratio, num_tokens: int, guard: Guard) -> list[Goal]:
    bound, least = f"{guard.num_over_bound} of {guard.num_runs} over it", 1 / (1 + ALLOWED + INVESTED / num_tokens)
    return [
        Goal(f"{way}: no request takes longer than the guard's bound", bound, guard.num_over_bound == 0),
        Goal(f"{way}: {num_tokens} tokens at least {least:.2f} of plain", str(whole), bool(whole.value >= least)),
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    parser.add_argument("--size", choices=list(SIZES), default="134m")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    target: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))
    if args.write is not None:
        print("\n".join(write_heads(target, args.write)))
        return
    with progress(f"growing the target to {args.size}"):
        target = inflate(target, SIZES[args.size])
    with tempfile.TemporaryDirectory() as folder:
        specs = write_heads(target, Path(folder))
        words = str(bundled_path(DEFAULT_TARGET))
        with paceline.load(target, tokenizer=words, drafters="none", cache_tokens=8192) as llm:
            found = measured(llm, specs, args)
            numerics = llm.target.numerics()
    table, goals = report(found)
    show(table)
    print_goals(goals)
    write_json(args.json, {"goals": [goal.as_dict() for goal in goals], "numerics": numerics})


if __name__ == "__main__":
    main()
