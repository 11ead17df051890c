"""Drafts with a small model of the same vocabulary, coupled to the target through its noise.

A node's children are the top-k of `log q + G`, where q is the draft model's law at the target's temperature and
G is the very noise that the target will add there (design in docs/exactness.md; the one-child case is Daliri,
Musco and Suresh, arXiv 2408.07978). At temperature 0 they are the draft model's likeliest tokens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from paceline.bundled import DEFAULT_DRAFT
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.errors import ConfigError, DrafterError, ModelError
from paceline.sampling.noise import largest
from paceline.sampling.sampler import softmax

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from paceline.model.hf import Decoder
    from paceline.model.pool import CachedSequence


@register("model")
@dataclass(eq=False)
class ModelDrafter(BaseDrafter):
    """Asks a small model with the same vocabulary what comes next."""

    path: str | PreTrainedModel = option(  # noqa: RUF009  it makes a field
        "",
        help="the draft model: a folder, a hub name, a bundled name or, in Python, a PreTrainedModel, whose vocabulary "
        "is compared by its size alone; none: the one known for the target",
    )
    depth: int = option(16, ge=1, le=32, help="forwards of the draft model per step: the longest draft")
    width: int = option(2, ge=1, le=8, help="nodes extended at each depth")
    branch: int = option(2, ge=1, le=8, help="children proposed for each extended node")
    prior_tokens: ClassVar[float] = 2.0  # a draft model of the target's family is right more often than not
    _source_name: str = field(default="", init=False, repr=False)
    _decoder: Decoder | None = field(default=None, init=False, repr=False)
    _max_length: int = field(default=0, init=False, repr=False)
    _states: dict[int, _State] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """See `BaseDrafter`: where a draft model is known."""
        return environment.draft_model is not None

    def attach(self, environment: Environment) -> None:
        """Load the draft model; one given as an object is left as it is, and its weights are shared.

        Raises:
            ModelError: it cannot be read, or has another vocabulary. Of an object the sizes alone are compared, since
                nothing says which tokenizer is its own; of others all entries, and the first that differs is named.
            ConfigError: it is neither a name nor a `PreTrainedModel`.
        """
        from paceline.model.loading import load_draft
        from paceline.text.tokenizer import load_tokenizer

        source = _source(self.path, environment.draft_model)
        target = load_draft(source, environment.device)
        self._source_name = f"{_called(source)}, {target.memory()['weight_bytes']} bytes"
        if target.vocab_size != environment.vocab_size:
            raise ModelError(
                f"the draft model {_called(source)} has a vocabulary of {target.vocab_size}, the target one of "
                f"{environment.vocab_size}"
            )
        own = load_tokenizer(source, target, trust_remote_code=False) if isinstance(source, str) else None
        if own is not None and environment.tokenizer is not None:
            _check_vocabulary(_called(source), own.inner.get_vocab(), environment.tokenizer.get_vocab())
        for count in target.row_counts:
            target.dry_run(count, 0)  # what is prepared at the first use of a row count is prepared now
        self._decoder, self._max_length = target.decoder, target.max_length

    @property
    def identity(self) -> str:
        """See `BaseDrafter`: whatever the draft model was named by, and its size."""
        return f"{type(self).name}({self._source_name}, {self.depth}, {self.width}, {self.branch})"

    def start(self, request: Request) -> bool:
        """See `Drafter`: sets cache aside; the prompt is read when the first draft is asked for."""
        room = min(request.num_prompt_tokens + request.max_tokens, self._max_length) + _SCRATCH
        sequence = self._attached().pool.reserve(room)
        if sequence is None:
            raise DrafterError(f"the draft model's cache has no room for {room} tokens")
        self._states[request.id] = _State(sequence)
        return True

    def observe(self, outcome: StepOutcome) -> None:
        """Keep the draft model's rows of the accepted path; the rest is overwritten later."""
        state = self._states[outcome.request.id]
        kept = state.fed_path([token.id for token in outcome.tokens[: outcome.num_accepted_drafts]])
        self._attached().pool.keep_path(state.sequence, np.array(kept, np.int64))
        state.clear()

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        state = self._states.pop(request.id, None)
        if state is not None:
            self._attached().pool.release(state.sequence)

    def close(self) -> None:
        """See `Drafter`."""
        self._decoder = None

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """One tree per request, grown level by level; all requests share each forward of the draft model."""
        growing = [
            _Growth(self, request, self._states[request.id], limit)
            for request, limit in zip(requests, limits, strict=True)
        ]
        fits = [g for g in growing if len(g.request.tokens) + self.depth < self._max_length]
        self._catch_up(fits)
        min_gain = sum(g.limits.min_gain for g in fits)
        while sum(g.promise for g in fits) > min_gain:
            self._descend([g for g in fits if g.promise > 0.0])
        return [g.builder.build() for g in growing]

    def _catch_up(self, growing: Sequence[_Growth]) -> None:
        """Feed each request's tokens that are not cached yet, the pending one last, and branch from it."""
        from paceline.model.rows import TreeWork

        decoder = self._attached()
        if not growing:
            return
        work = []
        for g in growing:
            g.state.clear()
            missing = decoder.read(g.state.sequence, g.request.tokens, decoder.max_rows // len(growing))
            work.append(TreeWork(g.state.sequence, missing, range(-1, len(missing) - 1)))
        logits = decoder.forward(work)
        end = 0
        for g, item in zip(growing, work, strict=True):
            end += len(item.tokens)
            g.state.sequence.length += len(item.tokens)
            g.branch(-1, 1.0, logits[end - 1])

    def _descend(self, growing: Sequence[_Growth]) -> None:
        """Feed each request's best new nodes in one forward, and branch from them."""
        from paceline.model.rows import TreeWork

        decoder = self._attached()
        width = min(self.width, decoder.max_rows // len(growing))
        chosen = [(g, g.take(width)) for g in growing]
        work = [
            TreeWork(g.state.sequence, g.state.tokens, g.state.parents, len(g.state.tokens) - len(nodes))
            for g, nodes in chosen
        ]
        rows = iter(decoder.forward(work))
        for g, nodes in chosen:
            for node, score in nodes:
                g.branch(node, score, next(rows))

    def _attached(self) -> Decoder:
        if self._decoder is None:
            raise DrafterError("the model drafter is not attached to an engine, or was closed")
        return self._decoder


_SCRATCH = 2 * 64  # positions for the rows of one draft: at most depth * width, and the catching up


class _State:
    """One request in the draft model: its cached sequence, and the nodes fed beyond it in this step."""

    def __init__(self, sequence: CachedSequence) -> None:
        self.sequence = sequence
        self.clear()

    def clear(self) -> None:
        """Forget the nodes fed."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.place: dict[int, int] = {}  # node of the tree -> place among those fed

    def feed(self, node: int, token: int, parent: int) -> None:
        """Append a node of the tree under another one that was fed, or under the pending token (-1)."""
        self.place[node] = len(self.tokens)
        self.tokens.append(token)
        self.parents.append(self.place.get(parent, -1))

    def fed_path(self, tokens: Sequence[int]) -> list[int]:
        """Places of the fed nodes that spell `tokens` from the root, as far as they go."""
        path: list[int] = []
        for token in tokens:
            above = path[-1] if path else -1
            found = [
                i for i, (t, p) in enumerate(zip(self.tokens, self.parents, strict=True)) if (t, p) == (token, above)
            ]
            if not found:
                break
            path.append(found[0])
        return path


class _Growth:
    """One request's tree while it grows."""

    def __init__(self, drafter: ModelDrafter, request: Request, state: _State, limits: DraftLimits) -> None:
        self.request, self.state, self.limits = request, state, limits
        self.builder = TreeBuilder(drafter.name)
        self._branch, self._max_depth = drafter.branch, min(drafter.depth, limits.max_depth)
        self._level, self._before, self._gain = 1, 1.0, 0.0  # of nodes; tokens expected of the last one, and of this
        self._depth_of = {-1: 0}
        self._parent_of: dict[int, int] = {}
        self._token_of: dict[int, int] = {}
        self._new: list[tuple[float, int]] = []  # (score, node) not fed yet, of the newest depth

    @property
    def promise(self) -> float:
        """Tokens that a further level should bring; 0 if there may be none.

        It should bring less than this one by as much as this one brings less than the last.
        """
        if self._level >= self._max_depth or len(self.builder) >= self.limits.max_nodes:
            return 0.0
        return self._gain * min(self._gain / self._before, 1.0)

    def branch(self, node: int, score: float, logits: NDArray[np.float32]) -> None:
        """Add the children of a node that was fed, from its logits (V,)."""
        depth = self._depth_of[node]
        room = self.limits.max_nodes - len(self.builder)
        if node < 0 and self.request.sampler.grammar is not None:  # deeper the draft model must follow it by itself
            logits = np.where(self.request.sampler.grammar.mask(), logits, np.float32(-np.inf))
        for token, share in self._children(logits, len(self.request.tokens) + depth)[:room]:
            child = self.builder.add(node, token, share, _bucket(share, depth))
            self._depth_of[child], self._parent_of[child], self._token_of[child] = depth + 1, node, token
            self._new.append((score * share, child))
            self._gain += score * share

    def take(self, width: int) -> list[tuple[int, float]]:
        """The best nodes of the newest depth, marked as fed: (node, score)."""
        best = sorted(self._new, reverse=True)[:width]
        self._new = []
        self._level, self._before, self._gain = self._level + 1, self._gain, 0.0
        for _, node in best:
            self.state.feed(node, self._token_of[node], self._parent_of[node])
        return [(node, score) for score, node in best]

    def _children(self, logits: NDArray[np.float32], position: int) -> list[tuple[int, float]]:
        """(token, believed chance) of the top-k of log q + G; the belief is the softmax of those very sums."""
        params = self.request.params
        if params.is_greedy:
            best = largest(logits, _CONSIDERED)
            sums = logits[best].astype(np.float64)
        else:
            scores = np.divide(logits, params.temperature, dtype=np.float64)
            best, sums = self.request.sampler.noise.best(scores, position, _CONSIDERED)
        shares = softmax(sums)
        return [(int(t), float(s)) for t, s in zip(best[: self._branch], shares, strict=False)]


_CONSIDERED = 8  # tokens among which belief is shared out


def _bucket(share: float, depth: int) -> int:
    """What a node's success depends on: how sure the draft model is, and how far from the target's own text."""
    return 8 * min(depth.bit_length(), 3) + min(int(share * 8), 7)


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


def _check_vocabulary(name: str, own: Mapping[str, int], target: Mapping[str, int]) -> None:
    if own == target:
        return
    ours, theirs = ({index: token for token, index in v.items()} for v in (own, target))
    first = min(i for i in {*ours, *theirs} if ours.get(i) != theirs.get(i))
    raise ModelError(
        f"the draft model {name} has another vocabulary: id {first} is {ours.get(first)!r} there and "
        f"{theirs.get(first)!r} in the target"
    )
