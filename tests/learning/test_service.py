"""Tenants side by side, and what learning may take: by a clock that each look at it moves on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learning.world import ANCHORS, FakePupil, Traffic, domain, weights
from paceline.learning import service as module
from paceline.learning.allowance import SHARE, SLICE, Allowance
from paceline.learning.service import MOST_TENANTS, Learning

A, B = domain(1), domain(2)


class Clock:
    """Half a millisecond passes between two looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.0005
        return self.now


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    return tmp_path


def learning() -> tuple[FakePupil, Learning]:
    pupil = FakePupil(weights(A))
    return pupil, Learning(pupil, "head", Clock())


def request(learning: Learning, number: int, tenant: str, traffic: Traffic, count: int = ANCHORS) -> None:
    learning.start(number, tenant)
    for place in range(count):
        learning.observe(replace(traffic.anchor(place), request=number))
    learning.finish(number)


def learn_all(service: Learning) -> None:
    while service.rest():
        pass
    service.close()


def test_learning_takes_its_share_of_busy_time_and_no_more() -> None:
    _, service = learning()
    traffic, rng, busy, longest = Traffic(B, A, 1), random.Random(1), 0.0, 0.0
    for number in range(40):
        request(service, number, "ann", traffic)
        seconds = rng.uniform(0.0, 0.6)
        busy += seconds
        service.allowance.earn(seconds)
        for _ in range(100):
            taken = service.allowance.taken
            has_more = service.rest()
            longest = max(longest, service.allowance.taken - taken)
            if not has_more:
                break
        assert service.allowance.taken <= SHARE * busy + SLICE
    assert 0.5 * SHARE * busy < service.allowance.taken
    assert longest <= 2 * SLICE  # a slice, and what the last piece of work took beyond its end
    assert service.counts["candidates"] > 0


def test_a_service_without_busy_time_does_nothing() -> None:
    _, service = learning()
    request(service, 0, "ann", Traffic(B, A, 1))
    assert not service.rest()
    assert service.allowance.taken == 0.0


def test_what_is_taken_beyond_the_allowance_is_paid_back() -> None:
    allowance = Allowance(0.1)
    allowance.earn(1.0)
    allowance.bill(0.25)
    assert allowance.balance == pytest.approx(-0.15)
    allowance.earn(2.0)
    assert allowance.balance == pytest.approx(0.05)


def test_each_tenant_has_weights_of_its_own() -> None:
    pupil, service = learning()
    service.allowance.earn(1e9)
    sides = {"ann": Traffic(B, A, 2), "bob": Traffic(domain(3), A, 3), "eve": Traffic(A, A, 4)}
    for number in range(60):
        for place, (tenant, traffic) in enumerate(sides.items()):
            request(service, 3 * number + place, tenant, traffic, ANCHORS if tenant != "eve" else 1)
        learn_all(service)
    assert {"ann", "bob"} <= set(pupil.installed)
    assert "eve" not in pupil.installed
    assert not np.array_equal(pupil.weights("ann").w2, pupil.weights("bob").w2)
    assert service.counts["promotions"] >= 2
    again, fresh = learning()
    fresh.start(0, "ann")
    fresh.start(1, "eve")
    assert set(again.installed) == {"ann"}
    assert np.array_equal(again.weights("ann").w2, pupil.weights("ann").w2)


def test_who_asked_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    pupil, service = learning()
    for number in range(MOST_TENANTS):
        service.start(number, f"tenant {number}")
    service.start(100, "late")
    assert not service.wants(100)  # all others are at work
    service.finish(100)
    for number in range(MOST_TENANTS):
        service.finish(number)
    service.start(101, "tenant 0")
    pupil.install("tenant 1", pupil.own)
    service.start(102, "late")
    assert service.wants(102)
    assert "tenant 1" not in pupil.installed
    assert len(service._supervisors) == MOST_TENANTS


def test_a_large_head_learns_from_fewer_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_bytes, most in ((weights(A).num_bytes * 2, 2), (1, 1)):
        monkeypatch.setattr(module, "MOST_BYTES", num_bytes)
        _, service = learning()
        for number in range(3):
            service.start(number, f"tenant {number}")
        assert [service.wants(number) for number in range(3)] == [number < most for number in range(3)]


def test_a_request_that_was_never_started_is_none_of_it() -> None:
    _, service = learning()
    service.observe(Traffic(A, A, 5).anchor(0))
    service.finish(77)
    assert not service.wants(77)
    assert service.counts["candidates"] == 0


def test_a_tenant_with_much_to_say_is_held_back() -> None:
    _, service = learning()
    service.start(0, "ann")
    traffic, count = Traffic(A, A, 6), 0
    while service.wants(0):
        service.observe(replace(traffic.anchor(count), request=0, position=100 * count))
        count += 1
        assert count < 1000
    assert count == 128


def test_a_head_whose_own_weights_have_changed_is_not_learnt_from() -> None:
    pupil, service = learning()
    service.allowance.earn(1e9)
    request(service, 0, "ann", Traffic(B, A, 7))
    assert service.rest()
    pupil.own.w2[3, 3] += 1e-3
    with pytest.warns(RuntimeWarning, match="should be loaded again"):
        learn_all(service)
    assert not service.is_sound
    service.start(1, "ann")
    assert not service.wants(1)


def test_names_are_part_of_nothing_that_is_kept(folder: Path) -> None:
    _, service = learning()
    service.allowance.earn(1e9)
    for number in range(60):
        request(service, number, "a secret name", Traffic(B, A, number))
        learn_all(service)
    assert service.counts["promotions"] > 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"secret" in path.read_bytes() + str(path).encode()]
    assert module.SnapshotStore.of("head", "a secret name").load()
