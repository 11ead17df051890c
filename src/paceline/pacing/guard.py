"""The guard: two promises, kept by two kinds of accounts. Drafting spends what an account holds, and no more.

The engine's account: over everything that a pacer decodes,
    elapsed <= (1 + eps) * plain + K + sum of (actual - estimated cost),
eps being `max_slowdown` and K an opening investment of `INVESTMENT` plain steps, once for a model. What earlier
requests have saved may be spent on later ones. A request's account, with delta = `cap_of(eps)` and `GRACE` plain steps:
    elapsed <= (1 + delta) * plain + G + sum of (actual - estimated cost).

Definitions. `elapsed` is the time of an account's steps so far, all host time included. `plain` is what plain decoding
would have taken for the same tokens in the same company: prefill adds what it took; a step without drafts adds what
its forward and commit took; a step with drafts of n requests, which emits k_r tokens for request r, adds k_r * t1 to
that request's account and k * t1 to the engine's, k being the mean of k_r and t1 a lower bound of a plain step of n
requests. The estimated cost of prefill is what it took. That of a step is made of upper bounds: of asking drafters, of
learning from the step, and, if there are drafts, of the forward and of the rest for each token; without drafts, of
what forward and commit took. Its loss is the estimate should nothing be accepted, and for a batch with the rest of all
that neighbours might accept, less t1, or with no drafts less what forward and commit take. A step may lose only

    loss <= allowance = the least of the balances, each (1 + rate) * plain + opening - booked,

where `booked` is the sum of estimates, and of the idle overhead: the pacer's own time in steps in which nobody is
asked.

Claim. After every step both inequalities hold.
Proof. Take one account; let `estimated` be its sum of estimates; estimated <= booked. First, by induction, estimated <=
limit, with limit = (1 + rate) * plain + opening. It holds before the first step, for prefill. Let a step with drafts
have the estimate c. If k_r is 1 for all, c = t1 + loss. Each further token costs its rest in c. The account of a lone
request, and the engine's with it, gain t1 >= rest for it; of a batch, the loss has it already. So

    estimated' = estimated + c <= booked + loss + k * t1 <= limit + k * t1 <= limit'.

A step without drafts adds the same to both sides, and asking drafters for it, which the balance covered. Second,
elapsed is the sum of actual costs, so elapsed = estimated + sum of (actual - estimated cost). QED

Heads of the target are paid for step by step, whether they are asked or not: what they took is booked, so that less is
left for drafts, but it is not asked for before. Their context is let go 48 positions after a request last asked for it,
and after three requests that asked for none it is kept for one in sixteen (model/interest.py). By so much a promise may
be missed: a head that costs 3 % of a forward, a plain step and a half.

t1 in an opening is the first estimate of it. A step of a batch costs each of its requests all of its time, and the
engine once.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline.engine.request import Request

INVESTMENT = 32.0  # plain steps: what a model's drafters may cost before any has been right
GRACE = 4.0  # plain steps: the same for a request
_CAP, _TIMES = 0.1, 5.0  # delta: so many times epsilon, but no more than this unless epsilon is more


def cap_of(max_slowdown: float) -> float:
    """Delta: the share by which one request may be slower, where `max_slowdown` holds for all of them together."""
    return max(max_slowdown, min(_TIMES * max_slowdown, _CAP))


class Account:
    """Seconds that were taken, and those that may be lost.

    Args:
        rate: the share of plain decoding's time that may be lost.
        opening: seconds that may be lost besides.
    """

    __slots__ = ("_allowance", "_booked", "elapsed", "estimated", "opening", "plain")

    def __init__(self, rate: float, opening: float) -> None:
        self._allowance = 1.0 + rate
        self._booked = 0.0
        self.opening = opening
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


class Guard:
    """The accounts of a pacer: the engine's, and one of each running request.

    Args:
        max_slowdown: epsilon.
        plain_step: t1 as it is estimated at first, in seconds.
        cap: delta; None: `cap_of` epsilon.
    """

    def __init__(self, max_slowdown: float, plain_step: float, cap: float | None = None) -> None:
        self.engine = Account(max_slowdown, INVESTMENT * plain_step)
        self._rate = cap_of(max_slowdown) if cap is None else cap
        self._requests: dict[int, Account] = {}  # by request id

    def start(self, request: Request, prefill: float, plain_step: float) -> None:
        """Open a request's account; reading its prompt took `prefill` seconds."""
        self._requests[request.id] = Account(self._rate, GRACE * plain_step)
        self.book_reading(request, prefill)

    def book_reading(self, request: Request, seconds: float) -> None:
        """Enter the reading of tokens, which plain decoding would do as well."""
        for one in (self.engine, self._requests[request.id]):
            one.book(elapsed=seconds, estimate=seconds, plain=seconds)

    def finish(self, request: Request) -> Account | None:
        """Close a request's account; None if it was never opened."""
        return self._requests.pop(request.id, None)

    def account(self, request: Request) -> Account:
        """A running request's account."""
        return self._requests[request.id]

    def allowance(self, requests: Sequence[Request]) -> float:
        """What a step of these requests may lose, in seconds."""
        return min(self.engine.balance, min([self._requests[request.id].balance for request in requests]))

    def book_drafted(
        self, requests: Sequence[Request], counts: Sequence[int], plain: float, elapsed: float, estimate: float
    ) -> None:
        """Enter a step with drafts, which emitted `counts` tokens; `plain` is a plain step's time for its requests."""
        for request, count in zip(requests, counts, strict=True):
            self._requests[request.id].book(elapsed, estimate, count * plain)
        self.engine.book(elapsed, estimate, sum(counts) / len(counts) * plain)

    def book_plain(
        self, requests: Sequence[Request], undrafted: float, elapsed: float, estimate: float, idle_overhead: float
    ) -> None:
        """Enter a step without drafts, whose forward and commit took `undrafted` seconds."""
        self.engine.book(elapsed, estimate, undrafted, idle_overhead)
        for request in requests:
            self._requests[request.id].book(elapsed, estimate, undrafted, idle_overhead)
