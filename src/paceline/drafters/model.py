"""Drafts with a small model, coupled to the target through its noise where both have one vocabulary.

A node's children are the top-k of `log q + G`, where q is the draft model's law at the target's temperature and
G is the very noise that the target will add there (design in docs/exactness.md; the one-child case is Daliri,
Musco and Suresh, arXiv 2408.07978). At temperature 0 they are the draft model's likeliest tokens. One
with another vocabulary goes on with the text (_draft_model/foreign.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from paceline.bundled import DEFAULT_DRAFT
from paceline.drafters._draft_model import (
    Asked,
    Fed,
    ForeignLevels,
    Levels,
    ModuleLevels,
    NativeLevels,
    Shape,
    Words,
    fed_path,
)
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import EMPTY, DraftTree
from paceline.errors import ConfigError, DrafterError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from paceline.model.hf import HFTarget


@register("model")
@dataclass(eq=False)
class ModelDrafter(BaseDrafter):
    """Asks a small model what comes next."""

    path: str | PreTrainedModel = option(  # noqa: RUF009  it makes a field
        "",
        help="the draft model: a folder, a hub name, a bundled name or, in Python, a PreTrainedModel, whose vocabulary "
        "is taken for the target's if it is of its size; none: the one known for the target",
    )
    depth: int = option(16, ge=1, le=32, help="forwards of the draft model per step: the longest draft")
    width: int = option(2, ge=1, le=8, help="nodes extended at each depth")
    branch: int = option(2, ge=1, le=8, help="children proposed for each extended node")
    reads_sampler: ClassVar[bool] = True
    prior_tokens: ClassVar[float] = 2.0  # a draft model of the target's family is right more often than not
    _source_name: str = field(default="", init=False, repr=False)
    _max_length: int = field(default=0, init=False, repr=False)
    _levels: Levels | None = field(default=None, init=False, repr=False)
    _fed: dict[int, Fed] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """See `BaseDrafter`: where a draft model is known."""
        return environment.draft_model is not None

    def attach(self, environment: Environment) -> None:
        """Load the draft model; one given as an object is left as it is, and its weights are shared.

        Raises:
            ModelError: it cannot be read, or has another vocabulary and no tokenizer to tell texts by.
            ConfigError: it is neither a name nor a `PreTrainedModel`.
        """
        from paceline.model.loading import load_draft

        source = _source(self.path, environment.draft_model)
        target = load_draft(source, environment.device)
        self._source_name = f"{_called(source)}, {target.memory()['weight_bytes']} bytes"
        drafting = target.decoder.drafting()
        self._levels = ModuleLevels(target.decoder) if drafting is None else NativeLevels(target.decoder, drafting)
        words = _words(source, target, environment)
        if words is not None:
            self._levels = ForeignLevels(self._levels, words, self.depth, environment.vocab_size)
        self._max_length = target.max_length

    @property
    def identity(self) -> str:
        """See `BaseDrafter`: whatever the draft model was named by, and its size."""
        return f"{type(self).name}({self._source_name}, {self.depth}, {self.width}, {self.branch})"

    def start(self, request: Request) -> bool:
        """See `Drafter`: cache is set aside and the prompt read when a draft is asked for."""
        levels = self._attached()
        sequence = levels.decoder.pool.reserve(0)
        assert sequence is not None
        sequence.pin = levels.decoder.pin(request)
        self._fed[request.id] = levels.take_up(request, sequence)
        return True

    def observe(self, outcome: StepOutcome) -> None:
        """Keep the draft model's rows of the accepted path; the rest is overwritten later."""
        fed = self._fed[outcome.request.id]
        kept = fed_path(fed, [token.id for token in outcome.tokens[: outcome.num_accepted_drafts]])
        self._attached().decoder.pool.keep_path(fed.sequence, np.array(kept, np.int64))
        fed.clear()

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        fed = self._fed.pop(request.id, None)
        if fed is not None:
            self._attached().decoder.pool.release(fed.sequence)

    def close(self) -> None:
        """See `Drafter`."""
        self._levels = None

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """One tree per request, empty where the draft model's context or a forward has no room for it."""
        levels = self._attached()
        trees = [EMPTY] * len(requests)
        fits = [i for i, request in enumerate(requests) if self._has_room(request)]
        fits = fits[: levels.decoder.max_rows]
        if fits:
            asked = [Asked(requests[i], self._fed[requests[i].id], self._within(limits[i])) for i in fits]
            grown = levels.grow(asked, Shape(self.width, self.branch), self.name)
            for i, tree in zip(fits, grown, strict=True):
                trees[i] = tree
        return trees

    def _has_room(self, request: Request) -> bool:
        """Whether context and cache hold another draft; the cache grows by what this takes."""
        levels, fed = self._attached(), self._fed[request.id]
        num_tokens = levels.num_tokens(request, fed)
        if not 0 < num_tokens < self._max_length - self.depth:
            return False
        sequence, pool = fed.sequence, levels.decoder.pool
        wanted = num_tokens + _SCRATCH
        pool.extend(sequence, wanted)
        return len(sequence.pages) * pool.page_size >= wanted

    def _within(self, limits: DraftLimits) -> DraftLimits:
        return limits if limits.max_depth <= self.depth else replace(limits, max_depth=self.depth)

    def _attached(self) -> Levels:
        if self._levels is None:
            raise DrafterError("the model drafter is not attached to an engine, or was closed")
        return self._levels


_SCRATCH = 2 * 64  # positions for the rows of one draft: at most as many as nodes, and the catching up


def _source(given: Any, known: Any) -> Any:
    """What to load: what was given, else what is known for the target, else the bundled draft model."""
    from transformers import PreTrainedModel

    source = next((one for one in (given, known) if one is not None and one != ""), DEFAULT_DRAFT)
    if isinstance(source, (str, os.PathLike)):
        return os.path.expanduser(source)
    if not isinstance(source, PreTrainedModel):
        raise ConfigError(f"model: path is a {type(source).__name__}; allowed: a folder, a name or a PreTrainedModel")
    return source


def _called(source: Any) -> str:
    """A draft model in messages."""
    return repr(source) if isinstance(source, str) else f"given as a {type(source).__name__}"


def _words(source: Any, target: HFTarget, environment: Environment) -> Words | None:
    """Both vocabularies where they differ; None where the draft model's tokens are the target's own.

    An object of the target's size is taken to have its vocabulary: nothing says which tokenizer is its own.
    """
    from paceline.text.tokenizer import Tokenizer, load_tokenizer

    is_of_size = target.vocab_size == environment.vocab_size
    if is_of_size and not isinstance(source, str):
        return None
    own = None
    with nullcontext() if isinstance(source, str) else suppress(ModelError):  # an object may be of no folder any more
        own = load_tokenizer(_words_of(source), target, trust_remote_code=False)
    if own is not None and environment.tokenizer is not None:
        is_same = is_of_size and own.inner.get_vocab() == environment.tokenizer.get_vocab()
        return None if is_same else Words(Tokenizer(environment.tokenizer), own)
    if is_of_size:
        return None
    raise ModelError(
        f"the draft model {_called(source)} has a vocabulary of {target.vocab_size}, the target one of "
        f"{environment.vocab_size}, and {'its' if own is None else 'the other'} tokenizer is not known, "
        "by which texts could be told from one to the other"
    )


def _words_of(source: Any) -> Any:
    """What a draft model's tokenizer is read from."""
    from paceline.formats.opening import find_checkpoint

    found = find_checkpoint(source) if isinstance(source, str) else None
    return (found.tokenizer() if found is not None else None) or source
