"""Closings: tokens that complete a text under a grammar, so that structured output ends within a limit.

A grammar is opaque: it says which tokens may follow and whether the text may end. So a closing is found by walking,
those tokens first that are likely to close something. It is some way to the end, nearly always the shortest in tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
Closing = tuple[int, ...]

_MAX_STEPS = 8192  # tokens walked in search of one closing
_DETOUR = 8  # the same, beyond those that there is room for beside a known one
_MAX_DETOURS = 1000
_SPREAD, _WIDTH = 4, 12  # tokens walked in every direction, and walks at once
_MAX_CUT = 64  # tokens of a closing that may turn out to be needless
_MAX_JOINTS = 4  # places of a known closing that are tried as the beginning of its end
_FEW = 64  # allowed tokens
_HEAD = 1024  # tokens of a kind that are looked at where more are allowed
_CHOICES = 4  # of one kind, there
_AGAIN = 3  # choices that a token falls behind each time it is chosen: else a walk may go round for ever


def allowed(matcher: LLMatcher, vocab_size: int, end: int) -> Mask:
    """The tokens (V,) that the grammar can go on with; `end` is the token that stands for its end, which is none."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    mask = np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)
    mask[end : end + 1] = False  # a slice: it may lie beyond the model's vocabulary
    return mask


class Closer:
    """Finds closings over one tokenizer. What it finds is a function of its arguments alone."""

    def __init__(self, words: LLTokenizer, vocab_size: int) -> None:
        self._kinds = _Kinds([words.decode_bytes([token]) for token in range(vocab_size)], words.eos_token)

    def shortest(self, matcher: LLMatcher) -> Closing | None:
        """A closing of which no other token, at any of its places, was seen to lead to a shorter one."""
        best = self.find(matcher)
        at, place, num_detours = matcher.deep_copy(), 0, 0
        while best is not None and place < len(best) and num_detours < _MAX_DETOURS:
            rest, num_tried = self._shortened(at, best[place:])
            best, num_detours = (*best[:place], *rest), num_detours + num_tried
            if rest:
                at.consume_token(rest[0])
            place += 1
        return best

    def _shortened(self, matcher: LLMatcher, known: Closing) -> tuple[Closing, int]:
        """A closing that may be shorter than a known one, and how many other first tokens were tried."""
        known = self._cut(matcher, known)
        while (other := self._spread(matcher, known, len(known) - 1)) is not None:
            known = other
        others = [token for token in self.some(matcher) if known[:1] != (token,)]
        for token in others:
            tail = self.after(matcher, token, known[1:], len(known) - 2)
            known = known if tail is None else (token, *tail)
        return known, len(others)

    def _spread(self, matcher: LLMatcher, known: Closing, room: int) -> Closing | None:
        """A closing of at most `room` tokens: walks in every direction, while few tokens are allowed."""
        front = _Walk(self._kinds, matcher, *_ORDERS[0]).branches()
        for _ in range(min(room, _SPREAD) if len(front) > 1 else 0):
            closings = (walk.closing(known, room) for walk in front)
            closing = next((closing for closing in closings if closing is not None), None)
            if closing is not None:
                return closing
            front = [longer for walk in front for longer in walk.branches()][:_WIDTH]
        return None

    def _cut(self, matcher: LLMatcher, known: Closing) -> Closing:
        """The shortest end of a closing that is one from where it begins."""
        lengths = range(max(len(known) - _MAX_CUT, 0), len(known))
        ends = (known[len(known) - length :] for length in lengths)
        return next((end for end in ends if self._kinds.completes(matcher, end)), known)

    def after(self, matcher: LLMatcher, token: int, known: Closing, room: int) -> Closing | None:
        """A closing of at most `room` tokens from behind `token`; see `find`."""
        ahead = matcher.deep_copy()
        return self.find(ahead, known, room) if room >= 0 and ahead.consume_token(token) else None

    def find(self, matcher: LLMatcher, known: Closing = (), room: int = _MAX_STEPS) -> Closing | None:
        """A closing of at most `room` tokens from here, None if none is found.

        `known` is one from nearby; it is one from here too, if it can be, or its end becomes the end of one.
        """
        if matcher.is_accepting():
            return ()
        if 0 < len(known) <= room and self._kinds.completes(matcher, known):
            return known
        walks = (_Walk(self._kinds, matcher, *orders).to_the_end(known, room) for orders in _ORDERS)
        return next((found for found in walks if found is not None), None)

    def some(self, matcher: LLMatcher) -> list[int]:
        """A few tokens of every kind that may follow."""
        menu = _Menu(self._kinds, matcher)
        return [token for kind in _KINDS for token in menu.first(kind)]


class _Walk:
    """One way from a place in a grammar on."""

    def __init__(self, kinds: _Kinds, matcher: LLMatcher, inside: _Order, outside: _Order) -> None:
        self._kinds = kinds
        self._inside, self._outside = inside, outside
        self._at = matcher.deep_copy()
        self._menu = _Menu(kinds, self._at)
        self._tokens: list[int] = []
        self._chosen = Counter[int]()

    def to_the_end(self, known: Closing, room: int) -> Closing | None:
        """A closing of at most `room` tokens from where the walk began."""
        steps = min(room, max(room - len(known), 0) + _DETOUR, _MAX_STEPS)
        for _ in range(steps + 1):
            closing = self.closing(known, room)
            if closing is not None:
                return closing
            token = self._next()
            if token is None or not self._at.consume_token(token):
                return None
            self._tokens.append(token)
            self._menu = _Menu(self._kinds, self._at)
        return None

    def closing(self, known: Closing, room: int) -> Closing | None:
        """The tokens walked, if they are a closing with at most the end of another behind them or one token more."""
        if self._at.is_accepting():
            return tuple(self._tokens)
        left = room - len(self._tokens)
        tail = self._end_of(known, left)
        if tail is None and self._menu.few is not None:
            tail = self._end_behind_one_of(self._menu.few, known, left)
        return None if tail is None else (*self._tokens, *tail)

    def branches(self) -> list[_Walk]:
        """The walks that are a token longer, where few tokens are allowed."""
        longer = []
        is_outside = not self._menu.is_inside_string
        for token in self._menu.few or ():
            if is_outside and self._kinds.names[token] == "rest":  # whitespace
                continue
            walk = _Walk(self._kinds, self._at, self._inside, self._outside)
            if walk._at.consume_token(token):
                walk._tokens, walk._menu = [*self._tokens, token], _Menu(self._kinds, walk._at)
                longer.append(walk)
        return longer

    def _end_of(self, known: Closing, room: int) -> Closing | None:
        """The longest end of a closing that is one from here."""
        known = known[max(len(known) - room, 0) :]
        ids = np.array(known, np.int64)
        can_begin = self._menu.mask[ids]
        if self._menu.is_inside_string:  # anything may follow there; what goes on behind it begins with its end
            can_begin &= self._kinds.ends_strings[ids]
        starts = map(int, np.flatnonzero(can_begin)[:_MAX_JOINTS])
        return next((known[start:] for start in starts if self._kinds.completes(self._at, known[start:])), None)

    def _end_behind_one_of(self, tokens: list[int], known: Closing, room: int) -> Closing | None:
        """A token and behind it the end of a closing, or nothing, that together are a closing from here."""
        ends = [(), *(known[start:] for start in range(min(_MAX_JOINTS, len(known))) if len(known) - start < room)]
        found = ((token, *end) for end in ends for token in tokens)
        return next((closing for closing in found if self._kinds.completes(self._at, closing)), None) if room else None

    def _next(self) -> int | None:
        """A token that closes something if there is one, else one of another kind, those chosen already last."""
        menu = self._menu
        order = self._inside if menu.is_inside_string else self._outside
        for kind in order.closers:
            if first := menu.first(kind):
                return first[0]
        choices = [token for kind in order.openers for token in menu.first(kind, order.count)] or menu.first("rest")
        if len(choices) < 2:
            return choices[0] if choices else None
        costs = [place + order.again * self._chosen[token] for place, token in enumerate(choices)]
        token = choices[costs.index(min(costs))]
        self._chosen[token] += 1
        return token


class _Menu:
    """The tokens allowed at one place, by kind."""

    def __init__(self, kinds: _Kinds, matcher: LLMatcher) -> None:
        self.mask = allowed(matcher, len(kinds.names), kinds.end)
        self._kinds = kinds

    @property
    def is_inside_string(self) -> bool:
        """True if letters are allowed; outside there are but those of true, false, null and exponents."""
        return bool(self.mask[self._kinds.letters].any())

    def first(self, kind: str, count: int = _CHOICES) -> list[int]:
        """The first tokens of a kind; all of them if few are allowed."""
        if self.few is not None:
            return [token for token in self.few if self._kinds.names[token] == kind]
        head = self._kinds.heads[kind]
        return list(map(int, head[self.mask[head]][:count]))

    @cached_property
    def few(self) -> list[int] | None:
        if np.count_nonzero(self.mask) > _FEW:
            return None
        ids = np.flatnonzero(self.mask)
        return list(map(int, ids[np.argsort(self._kinds.ranks[ids])]))


class _Kinds:
    """The tokens of a vocabulary by kind, within a kind those first that are likely to bring a text nearer its end."""

    def __init__(self, texts: Sequence[bytes], end: int) -> None:
        self.end = end
        ranked = [_ranked(text) for text in texts]
        order = sorted(range(len(texts)), key=ranked.__getitem__)
        self.names = [kind for kind, _ in ranked]
        self.ranks = np.argsort(order)
        of_kind = {kind: [*tokens] for kind, tokens in groupby(order, self.names.__getitem__)}
        self.heads = {kind: np.array(of_kind.get(kind, ())[:_HEAD], np.int64) for kind in _KINDS}
        self.letters = np.array([t for t, text in enumerate(texts) if len(text) == 1 and text in _LETTERS], np.int64)
        self.ends_strings = np.array([text.startswith(b'"') for text in texts], np.bool_)

    def completes(self, matcher: LLMatcher, tokens: Closing) -> bool:
        """Whether tokens are a closing."""
        return bool(matcher.validate_tokens([*tokens, self.end]) > len(tokens))


@dataclass(frozen=True)
class _Order:
    """Kinds in the order in which they are walked: those that close whenever they can, the others in turn."""

    closers: Sequence[str]
    openers: Sequence[str]
    count: int = _CHOICES
    again: int = _AGAIN


_KINDS = ("brackets", "quotes", "commas", "numbers", "arrays", "objects", "signs", "words", "letters", "rest")
_WITHIN = ("words", "signs", "numbers", "letters", "brackets", "commas", "arrays", "objects")
_ORDERS = (  # inside a string and outside; one that opens arrays first may go on opening, and another opens objects
    (
        _Order(("quotes",), _WITHIN),
        _Order(("brackets", "quotes", "commas"), ("numbers", "arrays", "objects", "signs", "words", "letters")),
    ),
    (
        _Order(("quotes",), (*_WITHIN, "rest"), count=99, again=999),  # each sign and letter in turn
        _Order(("brackets", "commas"), ("numbers", "objects", "quotes", "arrays", "signs", "words", "letters")),
    ),
)
_LETTERS = b"abcdghijklmopqrsuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ"


def _ranked(text: bytes) -> tuple[str, tuple[int, bytes]]:
    """The kind of a token and its rank within it."""
    signs, num_opened = set(text), text.count(b"[") + text.count(b"{")
    if text and signs <= set(b'"]}'):
        return "quotes" if text.startswith(b'"') else "brackets", (-99 if text == b'""' else -len(text), text)
    if text.isdigit() or text in (b"true", b"false", b"null"):
        return "numbers", (len(text), text)
    if text and signs <= set(b'"[]{}:,'):
        return "arrays" if b"[" in text else "objects" if num_opened else "commas", (20 * num_opened - len(text), text)
    if text.isalnum() and text.isascii():
        return "letters" if len(text) == 1 else "words", (-len(text), text)
    if len(text) == 1 and 0x20 < text[0] < 0x7F and text != b"\\":
        return "signs", (b".@-/+_".find(text) % 99, text)
    return "rest", (len(text), text)
