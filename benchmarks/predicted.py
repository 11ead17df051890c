"""What `paceline train` predicts of block heads, beside what the engine makes of them: tokens a step and a second.

usage: python benchmarks/predicted.py FOLDER [HEAD ...] [--size bundled|134m] [--documents 40] [--json FILE]

FOLDER is what `paceline train` has written. Its own head is judged, the bundled one, and those in further folders, on
the texts that were held out there: walked as training does, and their prompts decoded anew, with 7 draft nodes a step,
or as many as a block has. Heads take turns. The target and the heads are grown, but with `--size bundled`.

What is predicted of a second is tokens a step over what a step takes, by turns with decoding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from goal import Goal, print_goals

import paceline
from paceline.bundled import DEFAULT_TARGET, block_head_of, bundled_path
from paceline.bundled.grow import SIZES, inflate
from paceline.console import Table, progress, show, write_json
from paceline.drafters import make
from paceline.engine.request import fresh_tenant
from paceline.heads.formats.speculators_dspark import read_head
from paceline.heads.inflating import inflate_head
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.pacing import FixedPacer
from paceline.training.block import BlockTrainee
from paceline.training.costs import step_costs
from paceline.training.data import Corpus, Document
from paceline.training.evaluate import DEPTH
from paceline.training.packing import pack
from paceline.training.recipe import choices_of, usual
from paceline.training.walking import walk

ERROR, GAIN = 0.05, 0.30  # of a prediction at most; of the trained head over the bundled one
TURN = 4  # prompts on which steps are timed, and which are then decoded
BUNDLED = "bundled"


@dataclass
class Decoded:
    """What the engine made of prompts."""

    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0

    @property
    def tokens_a_step(self) -> float:
        """The bonus token among them."""
        return self.tokens / self.steps

    @property
    def tokens_a_second(self) -> float:
        """Reading prompts left out."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Judged:
    """A head, predicted and decoded."""

    tau: float
    step_seconds: float
    engine: Decoded

    @property
    def tokens_a_second(self) -> float:
        """As predicted."""
        return self.tau / self.step_seconds

    @property
    def errors(self) -> tuple[float, float]:
        """Of tokens a step and of tokens a second, as shares of what the engine had."""
        engine = self.engine
        return self.tau / engine.tokens_a_step - 1, self.tokens_a_second / engine.tokens_a_second - 1


def walked(folder: Path, target: Any, documents: Sequence[Document]) -> float:
    """Tokens a step, as training predicts them."""
    head = read_head(folder)
    trainee = BlockTrainee(target, usual(target, **choices_of(head.config)))
    trainee.begin_with(head)
    trainee.prepare(documents)
    trainee.module.eval()
    packed = pack(documents, trainee.recipe.length)
    return walk(trainee, (packed.rows(slice(i, i + 1), target.device) for i in range(len(packed)))).tau


def loaded(size: str, small: Any) -> LLM:
    """The target of a size."""
    model = small if size == BUNDLED else inflate(small, SIZES[size])
    return paceline.load(model, tokenizer=str(bundled_path(DEFAULT_TARGET)), drafters="none", cache_tokens=8192)


@dataclass
class Contender:
    """A head at work: as many draft nodes a step as its block has, but no more than are judged."""

    drafter: Any
    nodes: int
    step_seconds: list[float]  # the mean of each part's prompts, decoded a little
    found: Decoded

    @classmethod
    def of(cls, folder: Path, size: str, small: Any) -> Contender:
        """One of a size, which has done nothing yet."""
        head = read_head(folder)
        grown = head if size == BUNDLED else inflate_head(head, small.config, SIZES[size])
        nodes = min(head.config.num_proposals, DEPTH)
        return cls(make("block", path=grown, learn=False), nodes, [], Decoded())

    def work(self, llm: LLM, documents: Sequence[Document]) -> None:
        """A part: steps are timed, and the documents decoded."""
        prompts = [one.prompt for one in documents]
        self.step_seconds.append(step_costs(llm, self.drafter, prompts, self.nodes).seconds)
        for number, document in enumerate(documents):
            self.decode(llm, document, number, self.found)

    def decode(self, llm: LLM, document: Document, seed: int, found: Decoded) -> None:
        """A document's prompt, at its temperature and as far as it went."""
        entry, pacer = document.entry, FixedPacer(self.nodes)
        size = max(entry.num_tokens - entry.num_prompt_tokens, 1)
        how: Any = {"temperature": entry.temperature, "max_tokens": size, "seed": seed, "ignore_eos": True}
        drafters, tenant = [self.drafter], fresh_tenant()
        stats = llm.generate(document.prompt, drafters=drafters, pacer=pacer, tenant=tenant, **how).stats
        found.tokens += stats.num_emitted_tokens
        found.steps += stats.num_steps
        found.seconds += stats.decode_seconds


def compete(llm: LLM, contenders: Sequence[Contender], documents: Sequence[Document]) -> None:
    """All of them on all documents, by turns: a machine changes within a minute."""
    for one in contenders:
        one.decode(llm, documents[0], 0, Decoded())  # what is prepared at first use
    with progress("decoding", len(documents) * len(contenders)) as bar:
        for first in range(0, len(documents), TURN):
            part, ahead = documents[first : first + TURN], first // TURN % len(contenders)
            for one in (*contenders[ahead:], *contenders[:ahead]):
                one.work(llm, part)
                bar(len(part))


def judged(args: argparse.Namespace) -> dict[str, Judged]:
    """Every head, by its folder's name."""
    small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"), attn_implementation="sdpa")
    small.requires_grad_(False)
    bundled = block_head_of(DEFAULT_TARGET)
    assert bundled is not None
    heads = {BUNDLED: bundled, args.folder.name: args.folder, **{one.name: one for one in args.heads}}
    chosen = Corpus(args.folder / "training", small.config.vocab_size).read(True)[: args.documents]
    contenders = {name: Contender.of(folder, args.size, small) for name, folder in heads.items()}
    with loaded(args.size, small) as llm:
        compete(llm, list(contenders.values()), chosen)
    taus = {name: walked(folder, small, chosen) for name, folder in heads.items()}
    return {name: Judged(taus[name], fmean(one.step_seconds), one.found) for name, one in contenders.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("heads", type=Path, nargs="*")
    parser.add_argument("--size", choices=[BUNDLED, *SIZES], default="134m")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = judged(args)
    columns = ("head", "tokens a step: walked", "engine", "error", "tokens a second: predicted", "engine", "error")
    table = Table(f"{args.size}: predicted, and decoded", columns)
    for name, one in found.items():
        cells = (f"{one.tau:.2f}", f"{one.engine.tokens_a_step:.2f}", f"{one.errors[0]:+.1%}")
        speed = (f"{one.tokens_a_second:.0f}", f"{one.engine.tokens_a_second:.0f}", f"{one.errors[1]:+.1%}")
        table.rows.append((name, *cells, *speed))
    show(table)
    gain = found[args.folder.name].tau / found[BUNDLED].tau - 1
    worst = max(abs(one.errors[1]) for one in found.values())
    goals = [
        Goal(f"the trained head at least {GAIN:+.0%} tokens a step", f"{gain:+.1%}", bool(gain >= GAIN)),
        Goal(
            f"predicted tokens a second of {len(found)} heads within {ERROR:.0%}", f"{worst:.1%}", bool(worst <= ERROR)
        ),
    ]
    print_goals(goals)
    heads = {name: {**asdict(one), "errors": one.errors} for name, one in found.items()}
    write_json(args.json, {"heads": heads, "goals": [goal.as_dict() for goal in goals]})


if __name__ == "__main__":
    main()
