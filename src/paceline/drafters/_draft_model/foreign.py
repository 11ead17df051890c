"""A draft model with a vocabulary of its own: it goes on with the text, and what it says becomes the target's tokens.

Where both texts are cut at the same place, the target's tokenizer says which tokens follow: no others are proposed.
The draft model is asked for its likeliest tokens at every temperature, since no noise is shared between vocabularies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paceline.drafters._draft_model.fed import Asked, Fed, Levels, Shape, bucket_of, fed_path
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import MAX_NODES, DraftTree, TreeBuilder
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.stream import INCOMPLETE, TextStream, no_text

if TYPE_CHECKING:
    from paceline.model.decoder import Decoder
    from paceline.model.pool import CachedSequence, PagePool
    from paceline.text.tokenizer import Tokenizer

_REREAD = 8  # the draft model's last tokens, which more text may merge into others
_OPEN = 32  # buckets from here: the last tokens of what was said, which more text might have made others
_NUM_PATHS = 4  # of a tree, each of which is put into tokens by itself


class Words(NamedTuple):
    """Both vocabularies."""

    target: Tokenizer
    draft: Tokenizer


class Retold:
    """See `Fed`: a request as the draft model reads it. `read` keeps rows: only the text says which were right."""

    def __init__(self, own: Request, fed: Fed, words: Words) -> None:
        self.own, self._fed = own, fed  # the text in the draft model's tokens, and what its cache has of them
        self._words = words
        self._num_read = 0  # of the target's tokens
        self.sequence = fed.sequence

    @property
    def inner(self) -> Fed:
        """What the draft model was fed."""
        return self._fed

    def nodes(self) -> tuple[Sequence[int], Sequence[int]]:
        """See `Fed`: none of the target's."""
        return (), ()

    def clear(self) -> None:
        """See `Fed`."""

    def read(self, tokens: Sequence[int], pool: PagePool) -> None:
        """Take the target's tokens over as far as they make up whole characters; the cache keeps what is still so."""
        start, end = self._num_read, self._num_read + self._words.target.num_whole(tokens[self._num_read :])
        more = self._words.target.text_behind(tokens[:end], start)
        self._num_read = end
        self._settle(self._append(more, tokens[:end]) if more else len(self.own.tokens), pool)

    def continuation(self, ids: Sequence[int]) -> list[str]:
        """The text behind this request's after each of some more of the draft model's tokens."""
        before = self.own.tokens[-2 * _REREAD :]
        return self._words.draft.texts_behind([*before, *ids], len(before))

    def _append(self, more: str, tokens: Sequence[int]) -> int:
        """Add text; how many tokens stayed as they were."""
        own, words = self.own.tokens, self._words
        settled = words.draft.num_whole(own[: max(len(own) - _REREAD, 0)])
        again = words.draft.text_behind(own, settled) + more
        rest = words.draft.continued(own[:settled], again) if settled else None
        if rest is None:
            settled, rest = 0, words.draft.encode(words.target.decode(tokens))
        before = own[settled:]
        own[settled:] = rest
        pairs = zip(before, rest, strict=False)
        return settled + next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(before), len(rest)))

    def _settle(self, num_same: int, pool: PagePool) -> None:
        """Have the cache hold what it has of this text; the last token's logits are wanted, so it is read again."""
        length, last = self.sequence.length, len(self.own.tokens) - 1
        if num_same < length or last < length:
            pool.rewind(self.sequence, max(min(num_same, last), 0))
        else:
            pool.keep_path(self.sequence, np.array(fed_path(self._fed, self.own.tokens[length:last]), np.int64))
        self._fed.clear()


class ForeignLevels:
    """See `Levels`: what others grow of the draft model's tokens, in the target's. `depth` is of the draft model's."""

    def __init__(self, inner: Levels, words: Words, depth: int, vocab_size: int) -> None:
        self.decoder: Decoder = inner.decoder
        self._inner, self._words, self._depth, self._vocab_size = inner, words, depth, vocab_size

    def take_up(self, request: Request, sequence: CachedSequence) -> Retold:
        """See `Levels`."""
        sampler = Sampler(SamplingParams(max_tokens=1, temperature=0.0), SamplerContext(0), [], 0)
        own = Request([], sampler, TextStream(no_text, [], ()), frozenset())
        return Retold(own, self._inner.take_up(own, sequence), self._words)

    def num_tokens(self, request: Request, fed: Fed) -> int:
        """See `Levels`."""
        assert isinstance(fed, Retold)
        fed.read(request.tokens, self.decoder.pool)
        return len(fed.own.tokens)

    def grow(self, asked: Sequence[Asked], shape: Shape, source: str) -> list[DraftTree]:
        """See `Levels`."""
        own = []
        for request, fed, limits in asked:
            assert isinstance(fed, Retold)
            fed.read(request.tokens, self.decoder.pool)
            own.append(Asked(fed.own, fed.inner, self._own_limits(limits, len(fed.own.tokens) / len(request.tokens))))
        grown = self._inner.grow(own, shape, source)
        return [self._retell(one, tree, source) for one, tree in zip(asked, grown, strict=True)]

    def _own_limits(self, limits: DraftLimits, ratio: float) -> DraftLimits:
        """The limits in the draft model's tokens, of which there are `ratio` to one of the target's, and one more."""
        depth = math.ceil(limits.max_depth * ratio) + 1
        nodes = math.ceil(limits.max_nodes * ratio) + 1
        return DraftLimits(min(nodes, MAX_NODES), min(depth, self._depth), limits.min_gain * ratio)

    def _retell(self, asked: Asked, tree: DraftTree, source: str) -> DraftTree:
        """The tree in the target's tokens."""
        request, fed, limits = asked
        assert isinstance(fed, Retold)
        builder = TreeBuilder(source)
        mask = None if request.sampler.grammar is None else request.sampler.grammar.mask()
        for path in best_paths(tree, _NUM_PATHS):
            chain = self._chain(request, fed, [(tree.tokens[node], tree.scores[node]) for node in path])
            if chain and mask is not None and not mask[chain[0][0]]:
                continue
            node = -1
            for depth, (token, score) in enumerate(chain[: limits.max_depth], 1):
                if len(builder) == limits.max_nodes:
                    break
                unsure = _OPEN if depth == len(chain) else 0
                node = builder.add(node, token, score, bucket_of(score, depth) + unsure)
        return builder.build()

    def _chain(self, request: Request, fed: Retold, said: list[tuple[int, float]]) -> list[tuple[int, float]]:
        """(token, believed chance) of the target's tokens for what the draft model says, with its own chances."""
        texts = fed.continuation([token for token, _ in said])
        whole = next((n for n in range(len(texts), 0, -1) if not texts[n - 1].endswith(INCOMPLETE)), 0)
        text = texts[whole - 1] if whole else ""
        tokens = (self._words.target.continued(request.tokens, text) if text else None) or []
        tokens = list(takewhile(lambda token: token < self._vocab_size, tokens))
        begins = [0, *map(len, texts[: whole - 1])]  # of what the draft model says, in characters
        before = request.tokens[-2 * _REREAD :]
        chain, done = [], 0
        for token, text in zip(tokens, self._words.target.texts_behind([*before, *tokens], len(before)), strict=True):
            covered = sum(begin < len(text) for begin in begins)
            chain.append((token, math.prod(score for _, score in said[done:covered])))
            done = covered
        return chain


def best_paths(tree: DraftTree, count: int) -> list[list[int]]:
    """Nodes from the root down to those leaves on whose way most tokens are to be expected, the best first."""
    reach: list[float] = []
    gain: list[float] = []
    for parent, score in zip(tree.parents, tree.scores, strict=True):
        reach.append(score * (reach[parent] if parent >= 0 else 1.0))
        gain.append(reach[-1] + (gain[parent] if parent >= 0 else 0.0))
    leaves = sorted(set(range(len(tree))) - set(tree.parents), key=lambda node: -gain[node])
    return [_path_to(tree, leaf) for leaf in leaves[:count]]


def _path_to(tree: DraftTree, node: int) -> list[int]:
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = tree.parents[node]
    return path[::-1]
