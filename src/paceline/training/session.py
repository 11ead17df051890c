"""A whole training: from prompts to a drafter and its card in a folder, in stages that a kill leaves resumable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, PreTrainedModel

from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.errors import ConfigError, ModelError
from paceline.formats.opening import find_checkpoint
from paceline.heads.formats.speculators_dspark import read_head
from paceline.llm import LLM
from paceline.model.loading import parse_device
from paceline.model.pretrained import read_model
from paceline.text.prompt_sets import read_prompt_set
from paceline.training.block import BlockTrainee, is_in_bf16
from paceline.training.card import card
from paceline.training.data import MIX, Corpus, Document, Plan, generate, questions_of
from paceline.training.draft import DraftTrainee
from paceline.training.evaluate import Scores
from paceline.training.loop import Budget, Run, Trainee
from paceline.training.recipe import Recipe, choices_of, usual

_WRITING = 0.2  # of the minutes, for the target to write in
_DOCUMENTS = 100_000  # at most
_RATE_ON = 2e-3  # of a head that was trained before
_PACE = 32  # documents that are written between two looks at the clock
_WORK = "training"  # the folder in the drafter's own that holds the data and the run

Tell = Callable[[float, str], None]  # the share that is done, and what is being done


class Kind(Protocol):
    """Makes a trainee of a target."""

    def __call__(self, target: PreTrainedModel, recipe: Recipe, name: str = "") -> Trainee:
        """See `loop.Trainee`."""


KINDS: dict[str, Kind] = {"block": BlockTrainee, "draft": DraftTrainee}


@dataclass(frozen=True)
class Order:
    """What a user asks for.

    Raises:
        ConfigError: something that there is not.
    """

    prompts: Path
    out: Path
    model: str = DEFAULT_TARGET
    kind: str = "block"
    budget: Budget = field(default_factory=Budget)
    documents: int | None = None  # None: as many as a fifth of the minutes brings
    device: str = "auto"
    choices: dict[str, Any] = field(default_factory=dict)  # of the recipe, in place of the usual ones
    start: Path | None = None  # of a block head that was trained before, to go on from

    def __post_init__(self) -> None:
        """See the class."""
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}; allowed: {', '.join(KINDS)}")
        if self.start is not None and not hasattr(KINDS[self.kind], "begin_with"):
            able = ", ".join(name for name, kind in KINDS.items() if hasattr(kind, "begin_with"))
            raise ConfigError(f"a head to go on from is given with kind {self.kind!r}; allowed: {able}")
        Recipe(**self.choices)
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{str(self.out)!r} is a file; allowed: a folder for what is trained")

    @property
    def work(self) -> Path:
        """Where data and run are kept."""
        return self.out / _WORK

    @property
    def mix(self) -> dict[float, float]:
        """Temperatures of the data."""
        return dict(self.choices.get("mix", MIX))


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    scores: Scores
    walked: dict[str, float]  # tokens a step by kind of text and temperature, and over all
    corpus_bytes: int
    num_tokens: int
    steps: int
    seconds: float
    out: Path


def train(order: Order, tell: Tell = lambda share, what: None) -> Outcome:
    """Write data, train, evaluate, and write the drafter with its card. What was done before is not done again.

    Raises:
        ConfigError: a folder that holds another run, or prompts that do not suffice.
        ModelError: a model that no drafter can be trained for.
    """
    check_model(order.model)
    corpus, writing = write_data(order, tell)
    target = read_target(order)
    trainee = trainee_of(order, target)
    run = Run(trainee, (corpus.read(False), corpus.read(True)), order.work, about(order))
    left = Budget(max(order.budget.minutes - writing / 60.0, 0.1), order.budget.steps)
    try:
        run.train(left, tell)
    finally:
        if run.state.history:
            run.write(order.out)
    tell(1.0, "evaluating")
    walked, held_out = run.walked(), corpus.read(True)
    steps = {f"{kind} at {heat:g}": tau for (kind, heat), tau in walked.by_kind(held_out).items()}
    outcome = Outcome(
        run.scores(),
        steps | {"all": walked.tau},
        corpus.num_bytes,
        corpus.num_tokens,
        run.state.step,
        run.state.seconds,
        order.out,
    )
    _describe(order, run, corpus, outcome)
    return outcome


def write_data(order: Order, tell: Tell) -> tuple[Corpus, float]:
    """The corpus of an order, and the seconds that were spent on it in all."""
    file = order.work / "writing.json"
    spent = json.loads(file.read_text("utf-8")) if file.exists() else {"seconds": 0.0, "documents": 0}
    limit = 60.0 * order.budget.minutes * _WRITING
    wanted = order.documents or _DOCUMENTS
    vocabulary = AutoConfig.from_pretrained(bundled_path(order.model) or order.model).get_text_config().vocab_size
    corpus = Corpus(order.work, vocabulary)
    while len(corpus) < wanted and (order.documents is not None or spent["seconds"] < limit):
        spent = _write_more(order, corpus, spent, limit, tell)
    return corpus, float(spent["seconds"])


def _write_more(order: Order, corpus: Corpus, spent: dict[str, Any], limit: float, tell: Tell) -> dict[str, Any]:
    length = int(order.choices.get("length", Recipe.length))
    texts = [(prompt.category, prompt.text) for prompt in read_prompt_set(order.prompts).prompts]
    began = time.monotonic() - spent["seconds"]
    wanted = order.documents or _DOCUMENTS
    with LLM(order.model, device=order.device) as llm:
        questions = questions_of(llm, texts, length)
        while len(corpus) < wanted:
            seconds = time.monotonic() - began
            if order.documents is None and seconds > limit:
                break
            share = len(corpus) / wanted if order.documents else seconds / limit
            tell(_WRITING * share, f"{order.model} writes: {len(corpus)} texts, {corpus.num_tokens} tokens")
            count = min(len(corpus) + _PACE, wanted)
            generate(llm, Plan(questions, count, length, order.mix, int(order.choices.get("seed", 0))), corpus)
            spent = {"seconds": time.monotonic() - began, "documents": len(corpus)}
            (order.work / "writing.json").write_text(json.dumps(spent), encoding="utf-8")
    return spent


def read_target(order: Order) -> PreTrainedModel:
    """The target as transformers runs it, frozen: in its own dtype where that is quick here, else in float32."""
    device = parse_device(order.device)
    dtype = "auto" if is_in_bf16(device) else torch.float32
    return read_model(order.model, dtype, device, attn_implementation="sdpa").requires_grad_(False)


def recipe_of(order: Order, target: PreTrainedModel) -> Recipe:
    """The usual recipe with the order's own choices."""
    return usual(target, **order.choices)


def trainee_of(order: Order, target: PreTrainedModel) -> Trainee:
    """What is trained: fresh, or a head that goes on from another of its shapes."""
    if order.start is None:
        return KINDS[order.kind](target, recipe_of(order, target), order.model)
    head = read_head(order.start)
    own = {"rate": _RATE_ON, **choices_of(head.config)}
    trainee = BlockTrainee(target, usual(target, **{**own, **order.choices}), order.model)
    trainee.begin_with(head)
    return trainee


def check_model(name: str) -> None:
    """Refuse what has no hidden states that could be recomputed here.

    Raises:
        ModelError: a quantised checkpoint, or an encoder-decoder.
    """
    if find_checkpoint(os.path.expanduser(name)) is not None:
        raise ModelError(f"{name!r} is quantised, and gradients need floats; allowed: the model that it was made of")
    config = None
    with suppress(OSError, ValueError):
        config = AutoConfig.from_pretrained(bundled_path(name) or os.path.expanduser(name))
    if config is None:
        raise ModelError(f"no model {name!r} is found; allowed: a bundled name, a folder, or a hub name")
    if config.is_encoder_decoder:
        raise ModelError(f"{name!r} is an encoder-decoder, for which no drafter is trained")


def about(order: Order) -> dict[str, Any]:
    """What decides a run beside its budget: another order may not go on from its file."""
    choices = {name: repr(value) for name, value in sorted(order.choices.items())}
    found = {"model": order.model, "kind": order.kind, "prompts": str(order.prompts), "choices": choices}
    return found if order.start is None else {**found, "start": str(order.start)}


def _describe(order: Order, run: Run, corpus: Corpus, outcome: Outcome) -> None:
    """The card for people, and the figures for programs."""
    held_out: Sequence[Document] = corpus.read(True)
    recipe = {**asdict(run.trainee.recipe), "mix": {f"{heat:g}": x for heat, x in run.trainee.recipe.mix.items()}}
    figures = {
        "model": order.model,
        "kind": order.kind,
        "recipe": recipe,
        "tau": outcome.walked["all"],
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "tokens": outcome.num_tokens,
        "best_step": run.state.best_step,
        "history": run.state.history,
        "scores": outcome.scores.as_dict(),
        "walked": outcome.walked,
    }
    (order.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (order.out / "README.md").write_text(card(figures, held_out), encoding="utf-8")
