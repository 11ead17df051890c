"""Closings: tokens that complete a text under a grammar, so that structured output ends within a limit.

A grammar is opaque: it says which tokens may follow and whether the text may end. So a closing is found by walking,
those tokens first that are likely to close something. It is some way to the end, nearly always the shortest in tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
Closing = tuple[int, ...]

_MAX_STEPS = 2000  # tokens walked in search of one closing
_MAX_WORK = 10_000  # tokens walked to make the first closing shorter
_FEW = 64  # allowed tokens
_HEAD = 1024  # tokens of a kind that are looked at where more are allowed
_CHOICES = 4  # of one kind, there
_AGAIN = 3  # choices that a token falls behind each time it is chosen: else a walk may go round for ever


def allowed(matcher: LLMatcher, vocab_size: int) -> Mask:
    """The tokens (V,) that the grammar can go on with."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    return np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)


class Closer:
    """Finds closings over one tokenizer. What it finds is a function of its arguments alone."""

    def __init__(self, words: LLTokenizer, vocab_size: int) -> None:
        texts = [words.decode_bytes([token]) for token in range(vocab_size)]
        ranks = [_ranked(text) for text in texts]
        order = sorted(range(vocab_size), key=ranks.__getitem__)
        self._vocab_size = vocab_size
        self._kind = [kind for kind, _ in ranks]
        self._rank = np.argsort(order)
        self._heads = {kind: np.array([t for t in order if ranks[t][0] == kind][:_HEAD], np.int64) for kind in _KINDS}
        self._letters = np.array([t for t, text in enumerate(texts) if len(text) == 1 and text in _LETTERS], np.int64)
        self._num_walked = 0

    def shortest(self, matcher: LLMatcher) -> Closing | None:
        """A closing of which no other token, at any of its places, was seen to lead to a shorter one."""
        self._num_walked = 0
        best = self.find(matcher, (), _MAX_STEPS)
        at, place = matcher.deep_copy(), 0
        while best is not None and place < len(best) and self._num_walked < _MAX_WORK:
            for token in self.some(at):
                tail = self.after(at, token, best[place + 1 :], len(best) - place - 2)
                best = best if tail is None else (*best[:place], token, *tail)
            at.consume_token(best[place])
            place += 1
        return best

    def after(self, matcher: LLMatcher, token: int, known: Closing, room: int) -> Closing | None:
        """A closing of at most `room` tokens from behind `token`; see `find`."""
        ahead = matcher.deep_copy()
        return self.find(ahead, known, room) if room >= 0 and ahead.consume_token(token) else None

    def find(self, matcher: LLMatcher, known: Closing, room: int) -> Closing | None:
        """A closing of at most `room` tokens from here, None if none is found.

        `known` is one from nearby; it is one from here too, if it can be, or its end becomes the end of one.
        """
        if matcher.is_accepting():
            return ()
        if 0 < len(known) <= room and _completes(matcher, known):
            return known
        walks = (self._walked(matcher, known, room, order) for order in _OUTSIDE)
        return next((found for found in walks if found is not None), None)

    def some(self, matcher: LLMatcher) -> list[int]:
        """A few tokens of every kind that may follow."""
        return [*chain.from_iterable(self._choices(allowed(matcher, self._vocab_size)).values())]

    def _walked(self, matcher: LLMatcher, known: Closing, room: int, outside: Sequence[str]) -> Closing | None:
        ahead, tokens, ids = matcher.deep_copy(), list[int](), np.array(known, np.int64)
        chosen = Counter[int]()
        while not ahead.is_accepting():
            mask = allowed(ahead, self._vocab_size)
            for start in map(int, np.flatnonzero(mask[ids])):
                if len(tokens) + len(known) - start <= room and _completes(ahead, known[start:]):
                    return (*tokens, *known[start:])
            token = self._next(mask, outside, chosen)
            if token is None or len(tokens) >= min(room, _MAX_STEPS) or not ahead.consume_token(token):
                return None
            self._num_walked += 1
            tokens.append(token)
        return tuple(tokens)

    def _next(self, mask: Mask, outside: Sequence[str], chosen: Counter[int]) -> int | None:
        """The token to walk: one that closes something if it can be, else of any kind, those chosen already last."""
        choices = self._choices(mask)
        closers, *others = _INSIDE if mask[self._letters].any() else outside
        if choices[closers]:
            return choices[closers][0]
        tokens = [*chain.from_iterable(choices[kind] for kind in others)]
        if len(tokens) < 2:
            return tokens[0] if tokens else None
        costs = [place + _AGAIN * chosen[token] for place, token in enumerate(tokens)]
        token = tokens[costs.index(min(costs))]
        chosen[token] += 1
        return token

    def _choices(self, mask: Mask) -> dict[str, list[int]]:
        """The first of each kind that are allowed; all that are if they are few."""
        if np.count_nonzero(mask) > _FEW:
            return {kind: list(map(int, head[mask[head]][:_CHOICES])) for kind, head in self._heads.items()}
        ids = np.flatnonzero(mask)
        found: dict[str, list[int]] = {kind: [] for kind in _KINDS}
        for token in map(int, ids[np.argsort(self._rank[ids])]):
            found[self._kind[token]].append(token)
        return found


def _completes(matcher: LLMatcher, tokens: Sequence[int]) -> bool:
    if matcher.validate_tokens(tokens) < len(tokens):
        return False
    ahead = matcher.deep_copy()
    return bool(ahead.consume_tokens(tokens) and ahead.is_accepting())


# In which order the kinds are walked. Inside a string letters are allowed; outside there are but those of true, false,
# null and exponents. An order that opens arrays first may go on opening: another opens objects first.
_KINDS = ("brackets", "quotes", "numbers", "arrays", "objects", "signs", "words", "letters", "rest")
_INSIDE = ("quotes", "words", "signs", "numbers", "letters", "brackets", "arrays", "objects", "rest")
_OUTSIDE = (_KINDS, ("brackets", "numbers", "objects", "quotes", "arrays", "signs", "words", "letters", "rest"))
_LETTERS = b"abcdghijklmopqrsuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ"


def _ranked(text: bytes) -> tuple[str, tuple[int, bytes]]:
    """The kind of a token, and its rank in it: those first that are likely to bring a text nearer to its end."""
    signs = set(text)
    if text and signs <= set(b'"]}'):
        return "quotes" if text.startswith(b'"') else "brackets", (-len(text), text)
    if text.isdigit() or text in (b"true", b"false", b"null"):
        return "numbers", (len(text), text)
    if text and signs <= set(b'"[]{}:,'):
        kind = "arrays" if b"[" in text else "objects" if b"{" in text else "signs"
        return kind, (20 * (text.count(b"[") + text.count(b"{")) - len(text), text)
    if text.isalnum() and text.isascii():
        return "letters" if len(text) == 1 else "words", (-len(text), text)
    if len(text) == 1 and 0x20 < text[0] < 0x7F and text != b"\\":
        return "signs", (b".@-/+_".find(text) % 99, text)
    return "rest", (len(text), text)
