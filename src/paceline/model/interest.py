"""Whether a head's context is worth keeping for a request: where none was asked for lately, only now and then.

What heads read costs a few hundredths of every forward, asked or not. A head that does not pay is soon asked no more,
and its context would be kept for nothing, request by request. The prefix cache tells pages with it from those without,
so a change of mind may cost a prompt that is known: then what is known counts more.
"""

from __future__ import annotations

from collections.abc import Callable

_PATIENCE = 3  # requests in a row that asked for no head, or ceased to
_SELDOM = 16  # then one request in so many is tried
_DEAR = 0.25  # of a prompt: who would have to read so much anew goes by the pages that are known


class Interest:
    """Decides once for each request, and learns from those that have ended."""

    def __init__(self) -> None:
        self._decided: dict[int, bool] = {}  # by request id
        self._num_unasked = 0
        self._num_waiting = 0  # requests since one was tried

    def decide(self, request_id: int, known: Callable[[bool], float]) -> bool:
        """Whether to keep the context of a request; the same for as long as it runs.

        `known` is the share of its prompt that the prefix cache has, with context and without.
        """
        if request_id not in self._decided:
            is_kept = self._is_worth()
            if known(not is_kept) - known(is_kept) > _DEAR:
                self._num_waiting = _SELDOM - 1 if is_kept else self._num_waiting  # one that was due is due still
                is_kept = not is_kept
            self._decided[request_id] = is_kept
        return self._decided[request_id]

    def note(self, request_id: int, is_asked: bool) -> None:
        """A request has ended, or waits anew, and a head was asked for it to the end; or none was, or none any more."""
        if self._decided.pop(request_id, False):
            self._num_unasked = 0 if is_asked else self._num_unasked + 1

    def _is_worth(self) -> bool:
        if self._num_unasked < _PATIENCE:
            return True
        self._num_waiting = (self._num_waiting + 1) % _SELDOM
        return self._num_waiting == 0
