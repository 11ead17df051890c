"""One head for one tenant, from what is observed to what may draft.

The learner's weights are frozen as a candidate and tried on requests that began later, against those that draft:
both go along the path that the target really went, so that neither has to draft for it. If the gate lets the candidate
pass it drafts, and the former weights are shadowed and may come back.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from paceline.heads.weights import Weights
from paceline.learning import EVENTS
from paceline.learning.anchors import Anchor, Batch
from paceline.learning.cases import COUNTED, MOST_SAID, Case, Cases, Tokens
from paceline.learning.detector import Brake, Detector
from paceline.learning.gate import ALPHA, Gate
from paceline.learning.learner import Learner
from paceline.learning.scoring import Overlay, accepted, overlaps
from paceline.learning.snapshots import KEPT, Snapshot, SnapshotStore
from paceline.learning.weights import Delta, Watch

_BATCH = 16  # anchors that are judged at once: some two milliseconds
_MOST_WAITING = 128  # anchors that are not judged yet
_FRESH, _STEPS = 96, 24  # anchors and steps behind a candidate, beyond those of the one before it
_TRIED, _HOPELESS = 12, 400.0  # cases after which a candidate is given up that should need so many more
_TRIALS = 3  # at once: what was learnt since the first began may be much better


class Pupil(Protocol):
    """A head that learns, as its drafter shows it."""

    @property
    def own(self) -> Weights:
        """Its transition's own weights, where they lie and draft for whom nothing was installed."""

    @property
    def num_slots(self) -> int:
        """Slots of an anchor, at most."""

    @property
    def margin(self) -> float:
        """What drafting with learnt weights takes more than with the head's own, as a share of a step; 0 if nothing."""

    def install(self, tenant: str, weights: Weights) -> None:
        """Draft for a tenant, and for nobody else, with these from now on."""

    def weights(self, tenant: str) -> Weights:
        """Those that draft for it, where they lie: what was installed, else the head's own."""

    def forget(self, tenant: str) -> None:
        """Draft for it with the head's own again."""


class Version:
    """Weights that draft or did, or want to."""

    def __init__(self, own: Weights, delta: Delta, belief: float = 0.0, attempt: int = 0) -> None:
        self.delta, self.belief, self.attempt = delta, belief, attempt
        self.digest = delta.digest()
        self.overlay = Overlay(own, delta)

    @property
    def is_intact(self) -> bool:
        """Whether it is still what it was."""
        return self.delta.is_finite and self.delta.digest() == self.digest


@dataclass
class Trial:
    """A candidate under way to the gate."""

    candidate: Version
    gate: Gate
    begins: int  # the first case that counts
    overlap: float = 0.0  # summed over anchors
    num_anchors: int = 0

    @property
    def is_tried(self) -> bool:
        """Whether there were enough cases to foretell more."""
        return self.gate.num_differences >= _TRIED

    @property
    def is_hopeless(self) -> bool:
        """Whether it would take too long."""
        return self.is_tried and self.gate.remaining > _HOPELESS

    def see(self, case: Case, candidate: float, incumbent: float, overlap: float) -> None:
        """Enter an anchor, unless its request began before the trial: then the candidate may have learnt from it."""
        if case.number >= self.begins:
            case.add(self.candidate.attempt, candidate, incumbent)
            self.overlap += overlap
            self.num_anchors += 1


class Supervisor:
    """See the module.

    Args:
        pupil: the head.
        tenant: whose text is learnt from, and drafted for.
        store: what is kept of it between processes, and taken up again.
        alpha: see `gate.ALPHA`.
        seed: of choices: the same observations and as many steps give the same weights.
    """

    def __init__(self, pupil: Pupil, tenant: str, store: SnapshotStore, alpha: float = ALPHA, seed: int = 0) -> None:
        self.counts = dict.fromkeys(EVENTS, 0)
        self._pupil, self._tenant, self._store, self._alpha = pupil, tenant, store, alpha
        self._bound = 1.0 - 1.0 / (1.0 + pupil.num_slots)  # of `Tokens.advantage`
        self._learner = Learner(pupil.own, seed=seed)
        self._cases = Cases(seed)
        self._waiting: deque[tuple[Case, Anchor]] = deque()
        self._trials: list[Trial] = []
        self._keeping: threading.Thread | None = None
        self._fresh = self._steps = 0  # since the last candidate was frozen
        kept = [version for version in map(self._taken_up, store.load()) if version is not None]
        self._attempt = max((version.attempt for version in kept), default=0)
        self._formers = [*kept, Version(pupil.own, Delta.nothing(pupil.own))]
        self._draft_with(self._formers.pop(0))

    @property
    def wants_more(self) -> bool:
        """Whether there is room for another anchor."""
        return len(self._waiting) < _MOST_WAITING

    @property
    def has_work(self) -> bool:
        """Whether there is something to judge or to learn."""
        return bool(self._waiting) or self._learner.is_hungry

    def start(self, request: int, stratum: str = "") -> None:
        """A request begins, before anything is drafted for it."""
        self._cases.start(request, stratum)

    def observe(self, anchor: Anchor) -> None:
        """Take an anchor whose slots the target has answered; one that overlaps the last of its request is left out."""
        case = self._cases.of(anchor.request)
        if case is not None and self.wants_more and anchor.position >= case.end and anchor.is_sound:
            case.end = anchor.position + len(anchor.before)
            case.num_anchors += 1
            self._waiting.append((case, anchor))

    def finish(self, request: int) -> None:
        """A request has ended."""
        self._cases.finish(request)

    def close(self) -> None:
        """Wait until what was promoted is kept."""
        if self._keeping is not None:
            self._keeping.join()
            self._keeping = None

    def work(self, until: float, clock: Callable[[], float]) -> None:
        """Judge, learn and look after what drafts, until a time of the clock or until nothing is left to do."""
        self._look_after()
        while self._waiting and clock() < until:
            self._judge([self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))])
        self._settle()
        self._steps += self._learner.work(until, clock)
        if self._fresh >= _FRESH and self._steps >= _STEPS and self._has_room():
            self._nominate()

    def _judge(self, work: list[tuple[Case, Anchor]]) -> None:
        """See how the heads would have drafted, and only then have them learn from it."""
        batch = Batch.of([anchor for _, anchor in work])
        ours, former = _Drafted(self._incumbent, batch), self._shadow(work, batch)
        theirs = [(trial, _Drafted(trial.candidate, batch)) for trial in self._trials]
        for place, (case, anchor) in enumerate(work):
            for trial, drafted in theirs if case.num_judged < COUNTED else ():
                trial.see(case, drafted.tokens[place], ours.tokens[place], drafted.overlaps[place])
            if former is not None and case.num_judged == case.shadowed:
                self._detector.see(Tokens(former.tokens[place], ours.tokens[place]).advantage)
            self._brake.see(ours.overlaps[place])
            case.num_judged += 1
            self._learner.observe(anchor)
            self._fresh += 1
        if self._detector.is_alarmed or self._brake.is_pulled:
            self._roll_back()

    def _shadow(self, work: list[tuple[Case, Anchor]], batch: Batch) -> _Drafted | None:
        """What the former weights would have drafted, where an anchor's turn has come and there are any."""
        seen: dict[int, int] = {}
        for case, _ in work:
            place = case.num_judged + seen.get(case.number, 0)
            seen[case.number] = seen.get(case.number, 0) + 1
            if place == case.shadowed and self._formers:
                return _Drafted(self._formers[0], batch)
        return None

    def _settle(self) -> None:
        """Bet on the cases whose turn it is."""
        for case in self._cases.settled():
            for trial in [trial for trial in self._trials if trial.candidate.attempt in case.tokens]:
                trial.gate.see(case.tokens[trial.candidate.attempt].verdict, case.stratum)
            passed = [trial for trial in self._trials if trial.gate.is_passed]
            if passed:
                self._promote(passed[-1])
            self._trials = [trial for trial in self._trials if not trial.is_hopeless]

    def _has_room(self) -> bool:
        """Whether another candidate may be tried; if need be, in place of the one that would take longest of all."""
        if len(self._trials) < _TRIALS:
            return True
        slowest = max(self._trials, key=lambda trial: trial.gate.remaining)
        if not slowest.is_tried:
            return False
        self._trials.remove(slowest)
        return True

    def _nominate(self) -> None:
        """Freeze what was learnt as a candidate, for requests that begin from now on."""
        delta = self._learner.delta()
        if not delta.is_finite:
            self._learner.start_from(self._incumbent.delta)
            return
        self._attempt += 1
        self.counts["candidates"] += 1
        self._fresh = self._steps = 0
        candidate = Version(self._pupil.own, delta, attempt=self._attempt)
        gate = Gate(self._attempt, MOST_SAID, self._pupil.margin, self._alpha)
        self._trials.append(Trial(candidate, gate, self._cases.next_number))

    def _promote(self, trial: Trial) -> None:
        candidate = trial.candidate
        self._trials.remove(trial)
        if not candidate.is_intact:
            self.counts["restorations"] += 1
            return
        candidate.belief = trial.overlap / trial.num_anchors
        self.counts["promotions"] += 1
        self._formers = [self._incumbent, *self._formers][: KEPT - 1]
        self._draft_with(candidate)
        self._learner.settle(candidate.delta)
        self._keep()

    def _roll_back(self) -> None:
        """Draft with the newest of the former weights that are intact, at the last with the head's own."""
        self.counts["rollbacks"] += 1
        intact = [version for version in self._formers if version.is_intact]
        nothing = Version(self._pupil.own, Delta.nothing(self._pupil.own))
        self._formers = intact[1:]
        self._draft_with(intact[0] if intact else nothing)
        self._learner.settle(self._incumbent.delta)
        self._keep()

    def _draft_with(self, version: Version) -> None:
        self._incumbent = version
        self._trials = []  # what they have shown, they have shown against another
        self._detector = Detector(self._bound, self._pupil.margin)
        self._brake = Brake(version.belief)
        self._watch: Watch | None = None
        if version.delta.is_nothing:
            self._pupil.forget(self._tenant)
            return
        weights = version.delta.laid_over(self._pupil.own)
        self._watch = Watch(weights)
        self._pupil.install(self._tenant, weights)

    def _look_after(self) -> None:
        """Install anew what has changed in memory; the former weights where what was promoted has changed as well."""
        if self._watch is None or self._watch.look(self._pupil.weights(self._tenant)):
            return
        self.counts["restorations"] += 1
        warnings.warn("learnt weights had changed in memory; they were restored", RuntimeWarning, stacklevel=2)
        if self._incumbent.is_intact:
            self._draft_with(self._incumbent)
        else:
            self._roll_back()

    def _keep(self) -> None:
        """Have what drafts kept, beside what goes on: a disk may take long to say that it has something."""
        self.close()
        version = self._incumbent
        snapshot = Snapshot(version.delta.arrays, version.belief, self._attempt)
        self._keeping = threading.Thread(target=self._store.save, args=(snapshot,), name="paceline-keeping")
        self._keeping.start()

    def _taken_up(self, snapshot: Snapshot) -> Version | None:
        """What was kept, unless it is of another head."""
        try:
            delta = Delta.of(snapshot.weights, self._pupil.own)
        except ValueError as error:
            warnings.warn(f"{error}; it was passed over", RuntimeWarning, stacklevel=2)
            return None
        return Version(self._pupil.own, delta, snapshot.belief, snapshot.attempt)


class _Drafted:
    """What a head would have made of anchors: tokens of each step, the target's own included, and mean overlaps."""

    def __init__(self, version: Version, batch: Batch) -> None:
        scores = version.overlay.scores(batch)
        self.tokens: list[float] = (accepted(batch, scores) + 1.0).tolist()
        self.overlaps: list[float] = (overlaps(batch, scores).sum(-1) / batch.is_slot.sum(-1)).tolist()
