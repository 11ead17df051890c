"""Garbage is looked for later: the collector is off for a while, and on again as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from paceline.garbage import collected_later


@pytest.fixture(autouse=True)
def _as_a_program_has_it() -> Iterator[None]:
    """The collector on, and nothing frozen: neither is so among the tests."""
    gc.unfreeze()
    gc.enable()
    yield
    gc.disable()
    gc.freeze()


def test_the_collector_is_off_within_and_on_again_afterwards() -> None:
    with collected_later():
        assert not gc.isenabled()
        with collected_later():
            assert not gc.isenabled()
        assert not gc.isenabled()
        kept = [[] for _ in range(5000)]
    assert gc.isenabled()
    assert gc.get_count()[0] < 1000, "what was made counts as old"
    assert gc.is_tracked(kept)


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), collected_later():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_a_caller_who_turned_it_off_or_froze_objects_finds_them_so() -> None:
    gc.disable()
    try:
        with collected_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with collected_later():
            pass
        assert gc.get_freeze_count() > count // 2  # other threads let go of some; to thaw would leave none
    finally:
        gc.unfreeze()
