"""What learning may take: a share of the time in which tokens are decoded, billed to the second."""

from __future__ import annotations

SHARE = 0.02  # of busy time
SLICE = 0.005  # seconds that learning may take at once


class Allowance:
    """Seconds that learning has earned and not taken. What was taken never exceeds the share by more than a slice."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self.earned = self.taken = 0.0

    @property
    def balance(self) -> float:
        """What may be taken."""
        return self.earned - self.taken

    def earn(self, busy: float) -> None:
        """Enter time in which something was decoded."""
        self.earned += self._share * busy

    def bill(self, seconds: float) -> None:
        """Enter time that learning took."""
        self.taken += seconds
