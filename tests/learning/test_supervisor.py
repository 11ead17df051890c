"""From what is observed to what drafts: promotion, rollback, corruption, drift, tenants, and the next process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learning.world import ANCHORS, FakePupil, Traffic, domain, tokens_per_step, weights
from paceline.learning import supervisor as module
from paceline.learning.cases import COUNTED, SHADOWED, Case, Cases, Tokens
from paceline.learning.snapshots import SnapshotStore
from paceline.learning.supervisor import Supervisor

A, B = domain(1), domain(2)
OWN = weights(A)
IN_A, IN_B = (Traffic(law, A, 900).anchors(200) for law in (A, B))


class Serving:
    """A supervisor whose requests come one after the other, each judged and learnt from as soon as it has ended."""

    def __init__(
        self,
        folder: Path,
        pupil: FakePupil | None = None,
        seed: int = 1,
        tenant: str = "ann",
        trained_on: np.ndarray = A,
    ) -> None:
        self.pupil = pupil or FakePupil(OWN)
        self.supervisor = Supervisor(self.pupil, tenant, SnapshotStore(folder), seed=seed)
        self.tenant, self._traffic, self._next = tenant, {}, 0
        self._seed, self._trained_on = seed, trained_on

    @property
    def counts(self) -> dict[str, int]:
        return self.supervisor.counts

    def serve(self, law: np.ndarray, count: int, until: str = "", stratum: str = "") -> int:
        """Requests in a domain, until one of the counts goes up; how many."""
        before = self.counts.get(until)
        for number in range(count):
            self.request(law, stratum)
            if until and self.counts[until] != before:
                return number + 1
        assert not until, f"no {until} in {count} requests: {self.counts}"
        return count

    def request(self, law: np.ndarray, stratum: str = "") -> None:
        traffic = self._traffic.setdefault(
            law.tobytes(), Traffic(law, self._trained_on, self._seed + len(self._traffic))
        )
        self.supervisor.start(self._next, stratum)
        for place in range(ANCHORS):
            self.supervisor.observe(traffic.anchor(self._next * ANCHORS + place))
        self.supervisor.finish(self._next)
        self._next += 1
        self.supervisor.work(np.inf, lambda: 0.0)
        self.supervisor.close()

    def look_after(self) -> None:
        for _ in range(30):
            self.supervisor.work(np.inf, lambda: 0.0)
        self.supervisor.close()

    def tokens(self, anchors: list) -> float:
        return tokens_per_step(self.pupil.weights(self.tenant), anchors)


Changed = tuple[Path, Serving, int]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Changed:
    """After a change of domain, and the first promotion in it."""
    folder = tmp_path_factory.mktemp("store")
    serving = Serving(folder)
    return folder, serving, serving.serve(B, 70, until="promotions")


def test_after_a_change_of_domain_what_was_learnt_drafts(changed: Changed) -> None:
    _, serving, took = changed
    assert took < 60
    assert serving.tokens(IN_B) > 1.4 * tokens_per_step(OWN, IN_B)
    assert serving.counts["rollbacks"] == serving.counts["restorations"] == 0


def test_the_next_process_drafts_with_it_from_the_first_request_on(changed: Changed) -> None:
    folder, serving, _ = changed
    again = Serving(folder)
    assert np.array_equal(again.pupil.weights("ann").w2, serving.pupil.weights("ann").w2)
    again.serve(B, 9)
    assert again.supervisor._attempt > serving.supervisor._attempt  # alpha is not given out anew


def test_another_head_starts_anew(changed: Changed) -> None:
    other = weights(A, "gated")
    with pytest.warns(RuntimeWarning, match="of another head, or no numbers; it was passed over"):
        serving = Serving(changed[0], FakePupil(other))
    assert not serving.pupil.installed


def test_flipped_bits_of_what_drafts_are_found_and_restored(changed: Changed) -> None:
    serving = Serving(changed[0])
    wanted = serving.pupil.weights("ann").w2.copy()
    serving.pupil.weights("ann").w2[7, 3] = 1e20
    with pytest.warns(RuntimeWarning, match="had changed in memory"):
        serving.look_after()
    assert np.array_equal(serving.pupil.weights("ann").w2, wanted)
    assert serving.counts["restorations"] == 1


def test_what_was_promoted_and_has_changed_itself_gives_way(changed: Changed, tmp_path: Path) -> None:
    serving = Serving(changed[0])
    serving.supervisor._store = SnapshotStore(tmp_path)
    serving.pupil.weights("ann").w2[7, 3] = 1e20
    serving.supervisor._incumbent.delta.second_rows[0, 0] = 1e20
    with pytest.warns(RuntimeWarning, match="had changed in memory"):
        serving.look_after()
    assert not serving.pupil.installed  # the former are the head's own
    assert serving.counts["rollbacks"] == 1
    assert not Serving(tmp_path).pupil.installed  # in the next process too


def test_a_candidate_whose_bits_have_flipped_never_drafts(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    while serving.counts["restorations"] == 0:
        serving.request(B)
        for trial in serving.supervisor._trials:
            trial.candidate.delta.first_rows[0, 0] = -1e3
        assert serving.counts["promotions"] == 0
        assert serving.counts["candidates"] < 30
    assert not serving.pupil.installed


def test_worse_weights_that_draft_give_way_to_those_before_them(changed: Changed, tmp_path: Path) -> None:
    """The old domain comes back, in which the head's own weights are better; no candidate is quick enough to help."""
    serving = Serving(changed[0])
    serving.supervisor._store = SnapshotStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FRESH", 10**9)
        patch.setattr(module.Brake, "is_pulled", False)
        took = serving.serve(A, 250, until="rollbacks")
    assert serving.tokens(IN_A) == tokens_per_step(OWN, IN_A)
    assert took > 20  # a few anchors in a hundred are shadowed
    assert not Serving(tmp_path).pupil.installed


def test_a_crash_is_stopped_within_its_window(changed: Changed, tmp_path: Path) -> None:
    """All drafts turn bad at once; that the detector would find later."""
    serving = Serving(changed[0])
    serving.supervisor._store = SnapshotStore(tmp_path)
    random = np.full_like(A, 1.0 / len(A))
    assert serving.serve(random, 20, until="rollbacks") == -(-200 // ANCHORS)


def test_nothing_is_promoted_where_nothing_is_to_be_learnt(tmp_path: Path) -> None:
    """The target's law has no structure and the head expects none, so that every candidate is noise."""
    random = np.full_like(A, 1.0 / len(A))
    serving = Serving(tmp_path, FakePupil(replace(OWN, w2=OWN.w2 * 0)), trained_on=random)
    serving.serve(random, 40)
    assert serving.counts["candidates"] > 3
    assert serving.counts["promotions"] == 0


def test_a_stratum_that_loses_holds_a_candidate_up(tmp_path: Path) -> None:
    """Simpson's trap, with real drafts: the new domain is most of the traffic, and the old one would be forgotten."""
    promotions = []
    for strata in (("", ""), ("new", "old")):
        serving = Serving(tmp_path / strata[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_FRESH", 10**9)
            serving.serve(B, 10)
            patch.setattr(module, "_FRESH", 0)
            serving.serve(B, 1)
            patch.setattr(module, "_FRESH", 10**9)  # a single candidate, which knows the new domain alone
            for number in range(60):
                serving.request(*((A, strata[1]) if number % 4 == 0 else (B, strata[0])))
        promotions.append(serving.counts["promotions"])
    assert promotions == [1, 0]


def test_tenants_learn_as_if_each_were_alone(tmp_path: Path) -> None:
    """Nothing of one weighs in what drafts for another: it has the same weights to the bit, or none."""
    alone = Serving(tmp_path / "alone")
    alone.serve(B, 45)
    shared = FakePupil(OWN)
    one, other = Serving(tmp_path / "one", shared), Serving(tmp_path / "other", shared, tenant="bob")
    for _ in range(45):
        one.request(B)
        other.request(A)
    assert alone.counts["promotions"] > 0
    assert one.counts == alone.counts
    assert np.array_equal(shared.weights("ann").w2, alone.pupil.weights("ann").w2)
    assert not np.array_equal(shared.weights("bob").w2, shared.weights("ann").w2)


def test_requests_that_began_before_a_candidate_do_not_count(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    supervisor, traffic = serving.supervisor, Traffic(B, A, 3)
    supervisor.start(1000)
    early = [replace(traffic.anchor(i), request=1000) for i in range(ANCHORS)]
    supervisor.observe(early[0])
    serving.serve(B, 9, until="candidates")
    for anchor in early[1:]:
        supervisor.observe(anchor)
    supervisor.finish(1000)
    supervisor.work(np.inf, lambda: 0.0)
    assert [trial.gate.num_differences for trial in supervisor._trials] == [0]
    serving.serve(B, 1)
    assert [trial.gate.num_differences for trial in supervisor._trials] == [1]


def test_anchors_that_overlap_or_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    anchor = Traffic(B, A, 3).anchor(0)
    serving.supervisor.start(0)
    serving.supervisor.observe(anchor)
    serving.supervisor.observe(replace(anchor, position=3))
    serving.supervisor.observe(replace(anchor, position=4, target=anchor.target * np.nan))
    serving.supervisor.observe(replace(anchor, request=5))  # which never began
    assert len(serving.supervisor._waiting) == 1
    serving.supervisor.observe(replace(anchor, position=4))
    assert len(serving.supervisor._waiting) == 2


def settled(cases: Cases) -> list[int]:
    return [case.number for case in cases.settled()]


def end(cases: Cases, requests: Iterable[int]) -> None:
    for request in requests:
        cases.finish(request)


def test_cases_are_settled_in_the_order_in_which_they_began() -> None:
    cases = Cases(seed=0)
    for request in range(4):
        cases.start(request, "")
    first = cases.of(0)
    assert first is not None
    first.num_anchors = 20
    end(cases, (3, 1))
    assert settled(cases) == []
    first.num_judged = COUNTED  # what comes later of it does not count
    assert settled(cases) == [0, 1]
    end(cases, (2,))
    assert settled(cases) == [2, 3]


def test_a_request_that_does_not_end_holds_up_a_few_hundred_at_most() -> None:
    cases = Cases(seed=0)
    cases.start(-1, "")
    for request in range(300):
        cases.start(request, "")
        cases.finish(request)
    assert settled(cases) == list(range(1, 301))


def test_shadowed_anchors_are_a_few_in_a_hundred_and_one_of_a_request() -> None:
    cases, places = Cases(seed=0), []
    for request in range(2000):
        cases.start(request, "")
        case = cases.of(request)
        assert case is not None
        places.append(case.shadowed)
    assert set(places) == set(range(SHADOWED))
    assert 0.02 < np.mean(np.array(places) < ANCHORS) / ANCHORS < 0.05


def test_an_advantage_is_the_share_of_time_saved() -> None:
    case = Case(0, "", 0)
    case.add(1, 3.0, 2.0)
    case.add(1, 3.0, 1.0)
    assert case.tokens[1].advantage == 0.5
    assert Tokens(1.0, 2.0).advantage == -Tokens(2.0, 1.0).advantage == -0.5
    assert Tokens(0.0, 0.0).advantage == 0.0
    assert Tokens(5.0, 1.0).verdict == -Tokens(1.0, 5.0).verdict == pytest.approx(1 / 3)
    assert Tokens(5.0, 4.0).verdict == pytest.approx(0.2)
