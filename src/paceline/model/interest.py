"""Whether a head's context is worth keeping for a request: where none was asked for lately, only now and then.

What heads read costs a few hundredths of every forward, asked or not. A head that does not pay is soon asked no more,
and its context would be kept for nothing, request by request.
"""

from __future__ import annotations

_PATIENCE = 3  # requests in a row that asked for no head, or ceased to
_SELDOM = 16  # then one request in so many is tried


class Interest:
    """Decides once for each request, and learns from those that have ended."""

    def __init__(self) -> None:
        self._decided: dict[int, bool] = {}  # by request id
        self._num_unasked = 0
        self._num_waiting = 0  # requests since one was tried

    def decide(self, request_id: int) -> bool:
        """Whether to keep the context of a request; the same for as long as it runs."""
        if request_id not in self._decided:
            self._decided[request_id] = self._is_worth()
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
