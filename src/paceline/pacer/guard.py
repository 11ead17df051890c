"""The guard: time is spent on drafting only where drafting, or the opening balance, has earned it.

Definitions. For one request, after any step: `elapsed` is its decoding time so far, all host time included. `plain` is
what plain decoding would have taken for the same tokens: a step without drafts adds what it took itself, less the
pacer's time in it; a step with drafts that emitted k tokens adds k * t1, t1 being a lower bound of the plain step. The
believed cost of a step with drafts is made of upper bounds: of drafting, of the forward, of the rest for each of its k
tokens. Its loss is what it is believed to cost should nothing be accepted (k = 1), less t1. The guard allows it only if

    loss <= balance = (1 + eps) * plain + 2 * t1 - elapsed.

Claim. After every step, elapsed <= (1 + eps) * plain + 2 * t1 + sum of (actual - believed cost).
Proof, by induction. Before the first step, 0 <= 2 * t1. Let the claim hold, and a step with drafts emit k tokens at the
believed cost. That is at most t1 + loss for the first and (k - 1) * rest <= (k - 1) * t1 for the others, so

    elapsed' <= elapsed + loss + k * t1 <= (1 + eps) * plain + 2 * t1 + k * t1 <= (1 + eps) * plain' + 2 * t1.

What it costs beyond belief is the last term. A step without drafts adds the same to both sides but for the pacer's own
time in it, of which the same holds: asking drafters is a loss that the balance must cover, or none is asked. QED

t1 in the opening balance is the first one believed. A step of a batch costs each of its requests all of its time, so a
request that drafts badly can slow its neighbours down by no more than their balances.
"""

from __future__ import annotations

OPENING_STEPS = 2.0  # plain steps of opening balance: what the first drafts may cost before any has been accepted


class Account:
    """One request's account, in seconds."""

    __slots__ = ("_allowance", "elapsed", "opening", "plain", "surprise")

    def __init__(self, max_slowdown: float, plain_step: float) -> None:
        self._allowance = 1.0 + max_slowdown
        self.opening = OPENING_STEPS * plain_step
        self.elapsed = 0.0
        self.plain = 0.0
        self.surprise = 0.0  # sum of (actual - believed cost)

    @property
    def balance(self) -> float:
        """What the next step may lose."""
        return self._allowance * self.plain + self.opening - self.elapsed

    @property
    def bound(self) -> float:
        """What `elapsed` is proven not to exceed."""
        return self._allowance * self.plain + self.opening + self.surprise

    def book(self, seconds: float, believed: float, plain: float) -> None:
        """Enter a step: what it took, was believed to take, and would have taken by plain decoding."""
        self.elapsed += seconds
        self.plain += plain
        self.surprise += seconds - believed

    def as_dict(self) -> dict[str, float]:
        """Ready for JSON: seconds."""
        return {
            "elapsed_seconds": self.elapsed,
            "plain_seconds": self.plain,
            "opening_seconds": self.opening,
            "surprise_seconds": self.surprise,
            "bound_seconds": self.bound,
        }
