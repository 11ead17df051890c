"""Rules that end an output early: `stop_when`. One sees the tokens so far, and changes none of them.

They look back alone, so what stands before the end is what stands there without them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paceline.errors import RequestError

if TYPE_CHECKING:
    from paceline.engine.request import Token

WINDOW = 64  # of the last tokens, that a rule sees
UNCERTAIN, CUSTOM = "uncertain", "stop_when"  # stop reasons: of the rule with a name, and of one without
HIGH = 1.5  # nats: no area of uncertainty begins below
LOW = 0.75  # nor goes on below
MIN_TOKENS = 3  # of an area
_BEFORE = 2  # tokens that a level is averaged with


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an output is to end, and how many of its last tokens are the reason."""

    reason: str
    num_tokens: int = 1


# Of the last `Token`s: whether to stop behind them, in words or as a `Stop`; None and False go on.
StopWhen = Callable[[Sequence[Any]], Stop | str | bool | None]


@dataclass(frozen=True, slots=True)
class Stopped:
    """Tokens `start` to `end` (exclusive) of an output, that a rule ended it for, and why."""

    start: int
    end: int
    reason: str


def uncertain(tokens: Sequence[Token]) -> Stop | None:
    """Stop where the report's rule for areas finds one, as far as it can be known by then.

    A level is the mean entropy of a token and the two before it; an area has `MIN_TOKENS` levels of at least `LOW` in a
    row, one of which reaches `HIGH`. What drafts disagree on is left out: who drafts depends on the clock.
    """
    entropies = [token.entropy for token in tokens]
    run: list[float] = []  # levels, the last first
    for end in range(len(entropies), 0, -1):
        near = entropies[max(end - 1 - _BEFORE, 0) : end]
        level = sum(near) / len(near)
        if level < LOW:
            break
        run.append(level)
    if len(run) < MIN_TOKENS or max(run) < HIGH:
        return None
    inside = entropies[-len(run) :]
    return Stop(f"entropy {sum(inside) / len(run):.1f} nats on average, {max(inside):.1f} at most", len(run))


class Watch:
    """A rule at work on one output.

    Args:
        rule: that is asked behind each token.
    """

    def __init__(self, rule: StopWhen) -> None:
        self._rule = rule
        self._last: deque[Token] = deque(maxlen=WINDOW)
        self._num_tokens = 0
        self.name = UNCERTAIN if rule is uncertain else CUSTOM  # the stop reason of what it ends

    def see(self, token: Token, may_stop: bool) -> Stopped | None:
        """Take the next token; where and why the output ends with it, if it does.

        Raises:
            RequestError: the rule fails, or says what no rule says.
        """
        self._last.append(token)
        self._num_tokens += 1
        try:
            stop = _stop(self._rule(tuple(self._last))) if may_stop else None
        except Exception as error:
            raise RequestError(f"{CUSTOM} failed: {error!r}") from error
        if stop is None:
            return None
        return Stopped(max(self._num_tokens - stop.num_tokens, 0), self._num_tokens, stop.reason)


def _stop(said: Stop | str | bool | None) -> Stop | None:
    if said is None or said is False:
        return None
    stop = Stop(CUSTOM) if said is True else Stop(said) if isinstance(said, str) else said
    if not isinstance(stop, Stop):
        raise TypeError(f"it returned {said!r}; allowed: a Stop, a string, True, False or None")
    return stop
