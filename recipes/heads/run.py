"""The block head of the bundled target: prompts of five domains, the target's continuations, a head, its figures.

What is done is not redone; stop it when you like and start it again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent.parent / "tiny"))
import data

from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.console import progress
from paceline.llm import LLM
from paceline.model.pretrained import read_model
from paceline.training.data import Corpus, Document, Entry, Plan, Question, generate
from paceline.training.draft import Independent
from paceline.training.evaluate import Scores, distinct, evaluate
from paceline.training.loop import Budget, Run
from paceline.training.packing import Packed, pack
from paceline.training.recipe import Recipe, usual
from paceline.training.session import KINDS
from paceline.training.walking import Walked, walk

PROMPTS = {"story": 1500, "play": 600, "novel": 400, "command": 900, "maths": 900}  # to train on, by domain
HELD_OUT = 40  # of each
HEAD = {"taps": (4, 7), "num_layers": 1, "intermediate_size": 292, "rank": 48}  # under a million weights: 2 MB in bf16
SHORT = (3, 33)  # tokens of an opening of prose


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--work", type=Path, default=Path("runs/heads"), help="data, runs, figures")
    parser.add_argument("--out", type=Path, default=Path("runs/heads/tiny-block"))
    parser.add_argument("--documents", type=int, default=3_000, help="continuations to train on")
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--real", type=float, default=1.0, help="real documents, for each that the target wrote")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="head", help="of the run")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="of the recipe")
    parser.add_argument("--baseline", action="store_true", help="measure the bundled draft model alone")
    parser.add_argument("--data-alone", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    train, held_out = corpora(args)
    torch.set_num_threads(args.threads)
    if args.data_alone:
        return
    target = read_model(DEFAULT_TARGET, "auto", torch.device("cpu"), attn_implementation="sdpa")
    target.requires_grad_(False)
    if args.baseline:
        subject, packed = Independent(target, drafter()), pack(held_out, Recipe.length)
        report(
            args, "draft", evaluate(subject, batches(packed, 4), held_out), walk(subject, batches(packed, 1)), held_out
        )
        return
    train = [*train, *real(args, int(args.real * len(train)))]
    about = {"set": args.set, "real": args.real}
    recipe = usual(target, **(HEAD | dict(parsed(item) for item in args.set)))
    run = Run(KINDS["block"](target, recipe, DEFAULT_TARGET), (train, held_out), args.work / args.name, about)
    with progress("training", 1.0) as bar:
        run.train(Budget(args.minutes, args.steps), Watcher(bar.update, run, args.out))
    run.write(args.out)
    figures = report(args, args.name, run.scores(), run.walked(), held_out)
    size = sum(w.numel() for w in load_file(args.out / "model.safetensors").values())
    figures |= {"steps": run.state.step, "seconds": round(run.state.seconds), "parameters": size}
    (args.work / f"{args.name}.json").write_text(json.dumps(figures | {"history": run.state.history}, indent=1))


class Watcher:
    """Shows how far a run is, and writes its best head as soon as there is a better one."""

    def __init__(self, show, run: Run, out: Path) -> None:
        self.show, self.run, self.out, self.written = show, run, out, 0

    def __call__(self, share: float, what: str) -> None:
        self.show(share, what)
        if self.run.state.best_step != self.written:
            self.written = self.run.state.best_step
            self.run.write(self.out)
            print(f"{share:.0%} {what}", flush=True)


def parsed(item: str) -> tuple[str, object]:
    name, _, value = item.partition("=")
    found = json.loads(value)
    if name == "mix":
        found = {float(heat): share for heat, share in found.items()}
    return name, tuple(found) if isinstance(found, list) else found


def corpora(args: argparse.Namespace) -> tuple[list, list]:
    """Documents to train on and to evaluate on: of prompts that neither the target nor the head was trained on."""
    train, held_out = (Corpus(args.work / name, 4096) for name in ("train", "held_out"))
    if not args.baseline and (len(train) < args.documents or len(held_out) < 5 * HELD_OUT * 3):
        with LLM(drafters="none") as llm:  # of so small a model many texts at once are quickest undrafted
            known, unseen = data.load_documents(args.corpora)
            write(llm, prompts(llm, unseen, dict.fromkeys(PROMPTS, HELD_OUT), 1, True), 5 * HELD_OUT * 3, held_out, 1)
            write(llm, prompts(llm, known, PROMPTS, 0, False), args.documents, train, 0)
    print(f"{len(train)} documents of {train.num_tokens} tokens; {len(held_out)} held out of {held_out.num_tokens}")
    return train.read(False)[: args.documents], held_out.read(True)


def real(args: argparse.Namespace, count: int) -> list[Document]:
    """Documents that the target was trained on itself: its law along them is as good a lesson, and costs no writing."""
    known, _ = data.load_documents(args.corpora)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(bundled_path(DEFAULT_TARGET)))
    draw = random.Random(2)
    texts = [(domain, text) for domain, weight in PROMPTS.items() for text in draw.choices(known[domain], k=weight)]
    draw.shuffle(texts)
    found = []
    for domain, text in texts[:count]:
        ids = np.array([*tokenizer(text)["input_ids"], tokenizer.eos_token_id], np.uint16)[: Recipe.length]
        found.append(Document(Entry(domain, False, 1.0, 2, len(ids)), ids))
    return found


def write(llm: LLM, questions: list[Question], count: int, corpus: Corpus, seed: int) -> None:
    with progress("the target writes", count) as bar:
        generate(llm, Plan(questions, count, Recipe.length, Recipe().mix, seed), corpus, bar.update)


def prompts(llm: LLM, documents: data.Documents, counts: dict[str, int], seed: int, held_out: bool) -> list[Question]:
    """Openings of documents: of prose a few tokens, of a command or a question all of it."""
    draw, found = random.Random(seed), []
    for domain, count in counts.items():
        chosen = documents[domain][:]
        draw.shuffle(chosen)
        for text in chosen[:count]:
            found.append(Question(tuple(opening(llm, domain, text, draw)), domain, held_out))
    return list(dict.fromkeys(found))


def opening(llm: LLM, domain: str, text: str, draw: random.Random) -> list[int]:
    for mark in ("\nJSON:", "\nAnswer:"):
        if domain in ("command", "maths") and mark in text:
            return llm.encode(text[: text.index(mark) + len(mark)])[-128:]
    return llm.encode(text[:600])[: draw.randrange(*SHORT)]


def drafter():
    return read_model(str(bundled_path(DEFAULT_DRAFT)), "auto", torch.device("cpu"), attn_implementation="sdpa")


def batches(packed: Packed, size: int) -> Iterator[Packed]:
    return (packed.rows(slice(i, i + size), torch.device("cpu")) for i in range(0, len(packed), size))


def report(args: argparse.Namespace, name: str, scores: Scores, walked: Walked, held_out: list[Document]) -> dict:
    """Tokens a step by domain and temperature, and accepted and overlap by position."""
    heats = sorted({heat for _, heat in scores.tallies})
    figures = {"tau": walked.tau, "mean_over_places": scores.tau, "distinct_4_grams": distinct(held_out)}
    for domain in PROMPTS:
        found = {heat: tau for (kind, heat), tau in walked.by_kind(held_out).items() if kind == domain}
        figures[domain] = {f"{heat:g}": round(tau, 3) for heat, tau in found.items()}
    for wanted in heats:
        members = [i for i in walked.documents if held_out[i].entry.temperature == wanted]
        by_place = scores.over(lambda key, wanted=wanted: key[1] == wanted).as_dict()
        figures[f"at {wanted:g}"] = {"tau": walked.over(members), "by_place": by_place}
    (args.work / f"{name}.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))
    return figures


if __name__ == "__main__":
    main()
