"""What outlives requests: success counts, what drafters take and bring, what pacing takes. Kept between processes.

A process starts from what the last one with the same model and drafters has learnt. That counts for less than new
facts do, so that other text is soon believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from paceline.engine.request import Drafter
from paceline.pacing.costs import Quantile
from paceline.pacing.estimates import DrafterStatistics
from paceline.pacing.success_counts import ALL, SHARED_MEMORY, SuccessCounts

_KEPT_TRIALS = 64.0  # the most that a bucket's trials weigh in another process
_AND = "\n"  # between identities, which may have any other character
_PRIOR_TOKENS = 1.0  # of a drafter that says nothing of itself

Bucket = tuple[int, float, float]  # number, trials, successes


class Experience:
    """What a pacer has learnt of drafters, by name.

    Args:
        guess: seconds that a drafter takes which could not be timed.
        kept: `as_json` of an earlier process; what cannot be read of it is left out.
    """

    def __init__(self, guess: float, kept: Any = None) -> None:
        self.counts = SuccessCounts(SHARED_MEMORY)
        self.drafters: dict[str, DrafterStatistics] = {}
        self.overhead = Quantile(1e-4, 0.75)  # seconds that pacing takes in a step with proposals
        self.idle_overhead = Quantile(1e-5, 0.5)  # the same where nobody is asked
        self._guess = guess
        self._kept_drafters: dict[str, Any] = _part(kept, "drafters")  # by identity
        self._kept_counts: dict[str, Any] = _part(kept, "counts")  # by the identities of those who proposed
        self._identities: dict[str, str] = {}  # by name

    def meet(self, drafter: Drafter) -> bool:
        """Take up a drafter and what is kept of it; False if nothing is known of what asking it takes."""
        name = drafter.name
        if name in self.drafters:
            return True
        known = DrafterStatistics(self._guess, getattr(drafter, "prior_tokens", _PRIOR_TOKENS))
        self.drafters[name] = known
        identity = getattr(drafter, "identity", None)  # an object that has no more than the verbs is kept no account of
        if not identity or not isinstance(identity, str):
            return False
        self._identities[name] = identity
        self._restore_counts(name)
        return known.restore(self._kept_drafters.get(identity))

    def as_json(self) -> dict[str, Any]:
        """What to keep, ready for JSON: of earlier processes too, where this one has not met the drafters."""
        drafters = {
            identity: self.drafters[name].as_json()
            for name, identity in self._identities.items()
            if self.drafters[name].is_known
        }
        counts: dict[str, list[Bucket]] = {}
        for (names, bucket), (trials, successes) in self.counts.items():
            if all(name in self._identities for name in names.split("+")):
                who = _AND.join(self._identities[name] for name in names.split("+"))
                counts.setdefault(who, []).append((bucket, trials, successes))
        return {"drafters": self._kept_drafters | drafters, "counts": self._kept_counts | counts}

    def _restore_counts(self, name: str) -> None:
        """Those of a drafter that has just been met, and of its agreeing with others met before."""
        names = {identity: name for name, identity in self._identities.items()}
        for who, buckets in self._kept_counts.items():
            together = [names.get(identity) for identity in who.split(_AND)]
            if name in together and None not in together:
                for bucket, trials, successes in _sound(buckets):
                    weight = min(1.0, _KEPT_TRIALS / trials)
                    self.counts.put(
                        ("+".join(sorted(filter(None, together))), bucket), trials * weight, successes * weight
                    )


def _part(kept: Any, key: str) -> dict[str, Any]:
    part = kept.get(key) if isinstance(kept, Mapping) else None
    return dict(part) if isinstance(part, Mapping) else {}


def _sound(buckets: Any) -> Iterator[Bucket]:
    """The buckets that can be what they say; a file may have been written by anybody."""
    for one in buckets if isinstance(buckets, list) else ():
        if isinstance(one, list) and len(one) == 3 and all(type(number) in (int, float) for number in one):
            bucket, trials, successes = one
            limit = math.inf if bucket == ALL else trials  # of a drafter as a whole, more than expected may have come
            if (
                isinstance(bucket, int)
                and 0.0 < trials < math.inf
                and 0.0 <= successes < math.inf
                and successes <= limit
            ):
                yield bucket, trials, successes
