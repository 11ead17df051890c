"""The loop of a training run, whatever is trained: steps, held-out evaluation, and a file from which it goes on.

AdamW with 5 % of warm-up and a cosine to nothing; gradients clipped at a norm of 1. What is written and evaluated is
the moving average of the weights. Every draw is of the seed and the step's number, so a run that was killed and goes on
ends as one that was not. A budget of steps gives one result for one seed; one of minutes ends by the clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from paceline.errors import ConfigError
from paceline.training.data import Document
from paceline.training.evaluate import Scores, evaluate
from paceline.training.optimizing import optimizers
from paceline.training.packing import Packed, pack
from paceline.training.recipe import Recipe
from paceline.training.state import Progressed, Weights, restore, save
from paceline.training.walking import Walked, walk

_WARM_UP, _CLIP, _AVERAGE = 0.05, 1.0, 0.999
_HELD_OUT = 48  # sequences that are evaluated while it runs
_EVALUATED, _WALKED = 4, 1  # sequences at once
_SMOOTH = 0.98  # of the loss that is shown
_SAVED = 60.0  # seconds between files


class Trainee(Protocol):
    """What a kind of drafter brings to be trained."""

    recipe: Recipe
    depth: int  # tokens that it proposes

    @property
    def is_trained(self) -> bool:
        """Whether it begins with what was trained before: then that is looked at first, and kept if it is best."""

    @property
    def module(self) -> nn.Module:
        """All of it."""

    def loss(self, batch: Packed, draw: np.random.Generator) -> torch.Tensor:
        """The loss of a step."""

    def logits(self, batch: Packed, chosen: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """See `evaluate.Scored`."""

    def prepare(self, documents: Sequence[Document]) -> None:
        """Begin with what the texts say at a glance."""

    def weights(self) -> Weights:
        """What is trained, by name."""

    def write(self, folder: Path) -> None:
        """What was trained, as a drafter that can be loaded."""


@dataclass(frozen=True)
class Budget:
    """When a run ends: `minutes` of training by the clock, over all calls, or a number of `steps`.

    Evenly spread over it, the average of the weights is evaluated `looks` times, the last time at its end.
    """

    minutes: float = 15.0
    steps: int | None = None
    looks: int = 12

    def share(self, state: Progressed) -> float:
        """How much of it is spent, from 0 to 1."""
        if self.steps is not None:
            return min(state.step / max(self.steps, 1), 1.0)
        return min(state.seconds / (60.0 * self.minutes), 1.0)


class Run:
    """A trainee, its data and its file.

    Args:
        trainee: what is trained.
        documents: to train on, and to evaluate on.
        folder: where its state is kept.
        about: what the run was begun with, beside the recipe; another one may not go on from its file.
    """

    def __init__(
        self,
        trainee: Trainee,
        documents: tuple[Sequence[Document], Sequence[Document]],
        folder: Path,
        about: Mapping[str, Any],
    ) -> None:
        self.trainee, self._file, self._about = trainee, folder / "state.safetensors", about
        self._train, self._held_out = documents
        if not self._train or not self._held_out:
            raise ConfigError(
                f"there are {len(self._train)} documents to train on and {len(self._held_out)} to evaluate on; "
                "allowed: one of each at least: give more prompts"
            )
        recipe = trainee.recipe
        self._weights = trainee.weights()
        self._device = next(iter(self._weights.values())).device
        self._optimizers = optimizers(recipe.optimizer, self._weights, recipe.rate)
        if not self._file.exists():
            trainee.prepare(self._train)
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._best = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._tests = pack(self._held_out, recipe.length)
        self.state = restore(self._file, self._tensors(), about)
        self._epoch = pack(self._train, recipe.length, self._order())
        self._batch: Packed | None = None

    def train(self, budget: Budget, tell: Callable[[float, str], None] = lambda share, what: None) -> None:
        """Train until the budget is spent. Ctrl-C leaves a file that it goes on from.

        `tell` is told the share that is spent and what is being done.
        """
        state, began = self.state, time.monotonic() - self.state.seconds
        next_look, saved = 1 + sum(one["step"] > 0 for one in state.history), began + state.seconds
        try:
            if self.trainee.is_trained and not state.history:
                self._look()
            while (share := budget.share(state)) < 1.0:
                self._step(share)
                state.seconds = time.monotonic() - began
                tell(share, f"training: loss {state.loss:.3f}, tau {state.best:.2f}, step {state.step}")
                if budget.share(state) * budget.looks >= next_look:
                    next_look += 1
                    self._look()
                elif time.monotonic() - saved > _SAVED:
                    saved = time.monotonic()
                    self.save()
                state.seconds = time.monotonic() - began
        finally:
            self.save()

    def save(self) -> None:
        """Keep all that it takes to go on."""
        save(self._file, self._tensors(), self.state, self._about)

    def scores(self) -> Scores:
        """The best weights on all held-out text."""
        with self._in_place(self._best):
            return evaluate(self.trainee, self._batches(self._tests), self._held_out)

    def walked(self) -> Walked:
        """The best weights' steps through all held-out text."""
        with self._in_place(self._best):
            return walk(self.trainee, self._batches(self._tests, _WALKED))

    def write(self, folder: Path) -> None:
        """The best weights as a drafter."""
        with self._in_place(self._best):
            self.trainee.write(folder)

    def _step(self, share: float) -> None:
        state, recipe = self.state, self.trainee.recipe
        batch = self._next()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * _schedule(share)
        loss = self.trainee.loss(batch, np.random.default_rng([recipe.seed, 4, state.step]))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        state.step += 1
        keep = min(_AVERAGE, (1.0 + state.step) / (10.0 + state.step))
        torch._foreach_lerp_(list(self._average.values()), [w.detach() for w in self._weights.values()], 1.0 - keep)
        state.loss = loss.item() if state.step == 1 else _SMOOTH * state.loss + (1.0 - _SMOOTH) * loss.item()

    def _look(self) -> None:
        """Evaluate the average, and keep it if it is the best yet."""
        with self._in_place(self._average):
            batches = self._batches(self._tests.rows(slice(_HELD_OUT), self._device))
            tau = evaluate(self.trainee, batches, self._held_out).tau
        state = self.state
        state.history.append({"step": state.step, "seconds": state.seconds, "loss": state.loss, "tau": tau})
        if tau > state.best:
            state.best, state.best_step = tau, state.step
            torch._foreach_copy_(list(self._best.values()), list(self._average.values()))
        self.save()

    def _next(self) -> Packed:
        """The next sequences, or the last ones again; a new epoch packs anew, in an order of its own."""
        state, recipe = self.state, self.trainee.recipe
        is_again = state.step % recipe.reuse > 0
        if not is_again and state.place >= len(self._epoch):
            state.epoch, state.place = state.epoch + 1, 0
            self._epoch = pack(self._train, recipe.length, self._order())
        state.place += 0 if is_again else recipe.sequences
        if not is_again or self._batch is None:
            chosen = slice(state.place - recipe.sequences, state.place)
            self._batch = self._epoch.rows(chosen, self._device)
        return self._batch

    def _order(self) -> Any:
        return np.random.default_rng([self.trainee.recipe.seed, 3, self.state.epoch]).permutation(len(self._train))

    def _batches(self, packed: Packed, size: int = _EVALUATED) -> Iterator[Packed]:
        return (packed.rows(slice(i, i + size), self._device) for i in range(0, len(packed), size))

    @contextmanager
    def _in_place(self, weights: Weights) -> Iterator[None]:
        """Have the trainee carry other weights while a `with` lasts."""
        own = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._carry(weights)
        self.trainee.module.eval()
        try:
            yield
        finally:
            self._carry(own)
            self.trainee.module.train()

    @torch.no_grad()
    def _carry(self, weights: Weights) -> None:
        for name, weight in self._weights.items():
            weight.copy_(weights[name])

    def _tensors(self) -> Weights:
        """All tensors of the run, by name, as they are."""
        found = {f"weight.{name}": weight for name, weight in self._weights.items()}
        found |= {f"average.{name}": weight for name, weight in self._average.items()}
        found |= {f"best.{name}": weight for name, weight in self._best.items()}
        for name, weight in self._weights.items():
            states = (optimizer.state[weight] for optimizer in self._optimizers if weight in optimizer.state)
            found |= {f"{key}.{name}": value for state in states for key, value in state.items()}
        return found


def _schedule(share: float) -> float:
    """The rate's factor when so much of the budget is spent."""
    if share < _WARM_UP:
        return max(share, 1e-3) / _WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (share - _WARM_UP) / (1.0 - _WARM_UP)))
