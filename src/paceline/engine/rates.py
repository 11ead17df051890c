"""What reading and decoding take here, by what they took: how much may be read beside a step, and until when.

Running means, in seconds. Knows nothing of requests.
"""

from __future__ import annotations

from bisect import bisect_left

PAGE_ROWS = 64  # of a chunk while nobody decodes
_CHUNKS = (8, 16, 24, 32, 48, PAGE_ROWS)  # rows that a chunk may have while somebody decodes
_MAX_GAP = 3.0  # steps: a step, and what is read before it
_KEEP = 0.75  # of a mean, when a sample comes


class Rates:
    """Seconds of chunks by their rows, and of a step."""

    def __init__(self) -> None:
        self.step = 0.0  # 0 until there was one
        self._calm_step = 0.0  # before which nothing was read: reading slows down the step behind it
        self._has_read = False  # since the last step
        self._chunks: dict[int, float] = {}  # by the least of `_CHUNKS` that holds their rows

    def learn_chunk(self, num_rows: int, seconds: float) -> None:
        """Take in what reading so many rows took."""
        self._has_read = True
        size = _CHUNKS[min(bisect_left(_CHUNKS, num_rows), len(_CHUNKS) - 1)]
        self._chunks[size] = _mean(self._chunks.get(size, 0.0), seconds)

    def learn_step(self, seconds: float) -> None:
        """Take in what a step took, without what was read before it."""
        self.step = _mean(self.step, seconds)
        if not self._has_read:
            self._calm_step = _mean(self._calm_step, seconds)
        self._has_read = False

    def rows_beside_a_step(self) -> int:
        """Rows that may be read before a step, so that it comes within three times its own length; at least 8."""
        limit = (_MAX_GAP - 1.0) * (self._calm_step or self.step)
        fitting = [rows for rows in _CHUNKS if self.chunk(rows) <= limit]
        return max(fitting, default=_CHUNKS[0])

    def chunk(self, num_rows: int) -> float:
        """Seconds of a chunk: between those known in a straight line, beyond them in proportion."""
        known = sorted(self._chunks.items())
        if not known:
            return 0.0
        place = bisect_left(known, (num_rows, 0.0))
        (low, low_seconds), (high, high_seconds) = known[max(place - 1, 0)], known[min(place, len(known) - 1)]
        if low == high:
            return low_seconds * num_rows / low
        return low_seconds + (high_seconds - low_seconds) * (num_rows - low) / (high - low)

    def first_token(self, num_rows: int) -> float:
        """Seconds at least until a first token comes if so many rows are read before it; what is unknown takes none."""
        return self._chunks.get(PAGE_ROWS, 0.0) * num_rows / PAGE_ROWS + self.step


def _mean(mean: float, sample: float) -> float:
    return _KEEP * mean + (1.0 - _KEEP) * sample if mean else sample
