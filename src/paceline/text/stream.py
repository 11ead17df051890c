"""Tokens become text as they come: whole characters only, and nothing that may yet become a stop string.

Knows nothing of requests; the tokenizer is a function from ids to text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

Decode = Callable[[Sequence[int]], str]
INCOMPLETE = "\ufffd"  # what decoders put where a UTF-8 character is not finished


def no_text(ids: Sequence[int]) -> str:
    """The text of tokens where there is no tokenizer: none."""
    return ""


class TextStream:
    """The text of one output, token by token.

    Text before `prefix` is settled; the tokens from `prefix` to `read` are decoded again in front of each new
    one, because the text of a token may depend on its neighbours (leading spaces, bytes of one character).

    Args:
        decode: the tokenizer.
        prompt: the tokens before the output.
        stop: strings that end the text.
        keep_stop: the text ends behind its stop string, not before it.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int], stop: Sequence[str], keep_stop: bool = False) -> None:
        self._decode = decode
        self._ids = list(prompt[-6:])  # enough context for any byte-level or SentencePiece joiner
        self._prefix = 0
        self._read = len(self._ids)
        self._stop = tuple(stop)
        self._keep_stop = keep_stop
        self._text = ""  # all text so far, stop strings cut
        self._released = 0  # how much of it has been handed out

    @property
    def text(self) -> str:
        """What has been handed out."""
        return self._text[: self._released]

    def push(self, token: int, check_stop: bool) -> tuple[str, str | None]:
        """The text that `token` releases, and the stop string that is now complete and ends it, if one is."""
        self._ids.append(token)
        before = len(self._text)
        self._text += self._next_text(flush=False)
        found = self._find_stop(before) if check_stop else None
        if found is None:
            return self._release(len(self._text) - self._held_back()), None
        place, stop = found
        self._text = self._text[: place + len(stop) if self._keep_stop else place]
        return self._release(len(self._text)), stop

    def finish(self) -> str:
        """The text still held back, incomplete characters included as decoders show them."""
        self._text += self._next_text(flush=True)
        return self._release(len(self._text))

    def _next_text(self, flush: bool) -> str:
        prefix = self._decode(self._ids[self._prefix : self._read])
        whole = self._decode(self._ids[self._prefix :])
        if len(whole) <= len(prefix) or (whole.endswith(INCOMPLETE) and not flush):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return whole[len(prefix) :]

    def _find_stop(self, before: int) -> tuple[int, str] | None:
        """Of the stop strings that end in the text after `before` the one that begins first, and where it does."""
        places = [(self._text.find(s, max(0, before - len(s) + 1)), s) for s in self._stop]
        return min((found for found in places if found[0] >= 0), key=itemgetter(0), default=None)

    def _held_back(self) -> int:
        """How many characters at the end are the beginning of a stop string, and may yet have to go."""
        longest = 0
        for stop in () if self._keep_stop else self._stop:
            for size in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def _release(self, end: int) -> str:
        start, self._released = self._released, max(self._released, end)
        return self._text[start : self._released]
