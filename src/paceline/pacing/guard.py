"""The guard: time is spent on drafting only where drafting, or the opening balance, has earned it.

Definitions. For one request, after any step: `elapsed` is its time so far, all host time included. `plain` is what
plain decoding would have taken for the same tokens: prefill adds what it took; a step without drafts adds what its
forward and commit took; a step with drafts that emitted k tokens adds k * t1, t1 being a lower bound of the plain
step. The estimated cost of prefill is what it took. That of a step is made of upper bounds: of asking drafters, of
learning from the step, and, if there are drafts, of the forward and of the rest for each of k tokens; without drafts,
of what forward and commit took. Its loss is the estimate should nothing be accepted (k = 1), less t1, or with no
drafts less what forward and commit take. A step may lose only

    loss <= balance = (1 + eps) * plain + 2 * t1 - booked,

where `booked` is the sum of estimates, and of the idle overhead: the pacer's own time in steps in which nobody is
asked. Estimates are booked and not what steps took, since a machine's noise is no fault of drafting; they follow the
facts.

Claim. After every step, elapsed <= (1 + eps) * plain + 2 * t1 + sum of (actual - estimated cost).
Proof. Let `estimated` be the sum of estimates; estimated <= booked. First, by induction, estimated <= limit, with
limit = (1 + eps) * plain + 2 * t1. It holds before the first step, for prefill. Let a step with drafts emit k tokens
at the estimate c. That is t1 + loss for the first and (k - 1) * rest <= (k - 1) * t1 for the others, so

    estimated' = estimated + c <= booked + loss + k * t1 <= limit + k * t1 <= limit'.

A step without drafts adds the same to both sides, and asking drafters for it, which the balance covered. Second,
elapsed is the sum of actual costs, so elapsed = estimated + sum of (actual - estimated cost). QED

t1 in the opening balance is the first estimate of it. A step of a batch costs each of its requests all of its time, so
a request that drafts badly can slow its neighbours down by no more than their balances.
"""

from __future__ import annotations

OPENING_STEPS = 2.0  # plain steps of opening balance: what the first drafts may cost before any has been accepted


class Account:
    """One request's account, in seconds."""

    __slots__ = ("_allowance", "_booked", "elapsed", "estimated", "opening", "plain")

    def __init__(self, max_slowdown: float, plain_step: float) -> None:
        self._allowance = 1.0 + max_slowdown
        self._booked = 0.0
        self.opening = OPENING_STEPS * plain_step
        self.elapsed = 0.0
        self.plain = 0.0
        self.estimated = 0.0

    @property
    def balance(self) -> float:
        """What the next step may lose."""
        return self._allowance * self.plain + self.opening - self._booked

    @property
    def cost_error(self) -> float:
        """The sum of (actual - estimated cost)."""
        return self.elapsed - self.estimated

    @property
    def bound(self) -> float:
        """What `elapsed` is proven not to exceed."""
        return self._allowance * self.plain + self.opening + self.cost_error

    def book(self, elapsed: float, estimate: float, plain: float, idle_overhead: float = 0.0) -> None:
        """Enter a step.

        Args:
            elapsed: all of its time.
            estimate: its cost by upper bounds, as in the module's docstring.
            plain: what plain decoding would have taken for its tokens.
            idle_overhead: the pacer's own time, estimated, if nobody was asked.
        """
        self.elapsed += elapsed
        self.plain += plain
        self.estimated += estimate
        self._booked += estimate + idle_overhead

    def as_dict(self) -> dict[str, float]:
        """Ready for JSON: seconds."""
        return {
            "elapsed_seconds": self.elapsed,
            "plain_seconds": self.plain,
            "opening_seconds": self.opening,
            "cost_error_seconds": self.cost_error,
            "bound_seconds": self.bound,
        }
