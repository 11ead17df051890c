"""A request's pages in the target that hosts a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paceline.engine.request import WARM_UP, Request

if TYPE_CHECKING:
    from paceline.model.hosting import Host
    from paceline.model.pool import CachedSequence


class HostPages:
    """Finds them; a made-up request, by which is seen what proposals take, gets pages of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._made_up: dict[int, CachedSequence] = {}

    def of(self, request: Request) -> CachedSequence | None:
        """Pages that hold a request's tokens but the last, and what heads read of them; None where they do not."""
        sequence = self._made(request) if request.hints.tenant == WARM_UP else self._host.sequence(request)
        return None if sequence is None or sequence.length != len(request.tokens) - 1 else sequence

    def make_room(self, sequence: CachedSequence, num_positions: int) -> bool:
        """Whether the pages have room for so many positions; they grow by what it takes."""
        self._host.pool.extend(sequence, num_positions)
        return len(sequence.pages) * self._host.pool.page_size >= num_positions

    def forget(self, request: Request) -> None:
        """Give back what a made-up request had."""
        sequence = self._made_up.pop(request.id, None)
        if sequence is not None:
            self._host.pool.release(sequence)

    def _made(self, request: Request) -> CachedSequence | None:
        if request.id not in self._made_up:
            blank = self._host.blank(0)
            if blank is None:
                return None
            self._made_up[request.id] = blank
        sequence = self._made_up[request.id]
        has_room = self.make_room(sequence, len(request.tokens))
        sequence.length = len(request.tokens) - 1 if has_room else 0
        return sequence
