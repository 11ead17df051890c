"""All tenants that a head learns from, each for itself, within what learning may take.

Nothing of one tenant's text drafts for another, or weighs in what does: each has anchors, a learner, a line of
candidates, and weights of its own.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable

from paceline.learning import EVENTS
from paceline.learning.allowance import SLICE, Allowance
from paceline.learning.anchors import Anchor
from paceline.learning.snapshots import SnapshotStore
from paceline.learning.supervisor import Pupil, Supervisor
from paceline.learning.weights import Watch

MOST_TENANTS = 8  # that are learnt from at once; whoever asked longest ago makes room
MOST_BYTES = 256 << 20  # of learnt weights that draft: of a large head for fewer tenants, but for one


class Learning:
    """What the drafter of a head tells of its requests, and calls when nothing is decoded.

    Args:
        pupil: the head.
        identity: what tells it from other heads, also of another target: what was learnt is kept under this.
        clock: seconds.
    """

    def __init__(self, pupil: Pupil, identity: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.allowance = Allowance()
        self.is_sound = True  # False: the head's own weights have changed in memory, and nothing is learnt any more
        self._pupil, self._identity, self._clock = pupil, identity, clock
        self._watch = Watch(pupil.own)
        self._most_tenants = max(min(MOST_TENANTS, MOST_BYTES // pupil.own.num_bytes), 1)
        self._supervisors: dict[str, Supervisor] = {}  # by tenant, whoever asked last behind all others
        self._of: dict[int, Supervisor] = {}  # by request

    @property
    def counts(self) -> dict[str, int]:
        """Candidates, promotions, rollbacks, restorations of the tenants that are learnt from."""
        counts = dict.fromkeys(EVENTS, 0)
        for supervisor in self._supervisors.values():
            for name, count in supervisor.counts.items():
                counts[name] += count
        return counts

    def start(self, request: int, tenant: str, stratum: str = "") -> None:
        """A request begins, before anything is drafted for it."""
        supervisor = self._supervisors.pop(tenant, None) or self._taken_up(tenant)
        if supervisor is not None:
            self._supervisors[tenant] = self._of[request] = supervisor
            supervisor.start(request, stratum)

    def wants(self, request: int) -> bool:
        """Whether an anchor of a request would be of use."""
        return self.is_sound and request in self._of and self._of[request].wants_more

    def observe(self, anchor: Anchor) -> None:
        """Take an anchor whose slots the target has answered."""
        if self.wants(anchor.request):
            self._of[anchor.request].observe(anchor)

    def finish(self, request: int) -> None:
        """A request has ended."""
        supervisor = self._of.pop(request, None)
        if supervisor is not None:
            supervisor.finish(request)

    def rest(self) -> bool:
        """Nothing is decoded: learn for one slice, within the allowance; whether another would be of use now."""
        start = self._clock()
        until = start + min(SLICE, self.allowance.balance)
        if until <= start or not self.is_sound or not self._supervisors:
            return False
        self._look_after()
        supervisors = list(self._supervisors.values())
        for supervisor in [one for one in supervisors if one.has_work] or supervisors[-1:]:
            if self.is_sound and self._clock() < until:
                supervisor.work(until, self._clock)
        self.allowance.bill(self._clock() - start)
        return self.allowance.balance > 0 and any(one.has_work for one in supervisors)

    def close(self) -> None:
        """Nothing will be decoded any more."""
        for supervisor in self._supervisors.values():
            supervisor.close()

    def _look_after(self) -> None:
        if not self._watch.look(self._pupil.own):
            self.is_sound = False
            what = "the weights of a head have changed in memory; nothing is learnt of it any more"
            warnings.warn(f"{what}, and it should be loaded again", RuntimeWarning, stacklevel=2)

    def _taken_up(self, tenant: str) -> Supervisor | None:
        """A supervisor for a tenant that has none; None if all are at work for others."""
        if len(self._supervisors) >= self._most_tenants:
            busy = set(map(id, self._of.values()))
            idle = next((name for name, one in self._supervisors.items() if id(one) not in busy), None)
            if idle is None:
                return None
            self._pupil.forget(idle)
            self._supervisors.pop(idle).close()
        seed = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "big")
        return Supervisor(self._pupil, tenant, SnapshotStore.of(self._identity, tenant), seed=seed)
