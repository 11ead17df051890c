"""What others keep at work: the arithmetic on a made-up /proc/stat, and real busy processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from paceline.doctor import machine
from paceline.doctor.costs import forward_pace
from paceline.doctor.machine import CpuTimes, LoadWatch, busy_now, num_cores, read_times, spin
from paceline.pacing import ForwardCost

STAT = """cpu  900 900 900 900 900 900 900 900 900 900
cpu0 10 20 30 400 50 6 7 8 9 9
cpu1 1 2 3 40 5 0 0 0 0 0
cpu10 1000 0 0 0 0 0 0 0 0 0
intr 5 5 5
"""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    with ExitStack() as stack:
        for _ in range(count):
            code = "while True: pass"
            process = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-E", "-c", code]))
            stack.callback(process.kill)
        time.sleep(0.2)  # until they have started
        yield


def test_work_is_what_is_not_idle_on_the_processors_that_one_may_use() -> None:
    assert read_times(STAT, 10.0, [0]) == pytest.approx(8.1)  # what guests took is in the first field already
    assert read_times(STAT, 10.0, [0, 1]) == pytest.approx(8.7)
    assert read_times(STAT, 100.0, [1]) == pytest.approx(0.06)
    with pytest.raises(ValueError, match="no line"):
        read_times(STAT, 10.0, [7])


@pytest.mark.parametrize(
    ("after", "others"),
    [
        (CpuTimes(12.0, 5.0, 104.0), 2.0),  # others worked for 4 s of 2 s by the clock
        (CpuTimes(12.0, 8.0, 104.0), 0.5),  # for 1 s, the rest was this process
        (CpuTimes(12.0, 9.5, 104.0), 0.0),  # ticks are coarse: never less than none
        (CpuTimes(12.0, 5.0, 190.0), 4.0),  # nor more than there are
    ],
)
def test_others_are_everybody_less_oneself(after: CpuTimes, others: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_cores", lambda: 4)
    times = iter([CpuTimes(10.0, 5.0, 100.0), after])
    assert LoadWatch(lambda: next(times)).busy_elsewhere() == pytest.approx(others)


def test_where_nothing_can_be_read_it_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "spin", lambda: 1.25)
    assert LoadWatch(lambda: None).busy_elsewhere() == 1.25
    same = CpuTimes(1.0, 1.0, 1.0)
    assert LoadWatch(lambda: same).busy_elsewhere() == 1.25  # no time has passed
    monkeypatch.setattr(machine, "_allowed", lambda: [10**6])  # of which no file says anything
    assert machine.cpu_times() is None


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="there is no /proc/stat")
def test_a_process_for_each_processor_is_seen_and_told_of() -> None:
    """However busy the machine is already: then these take part of what others had."""
    cores = num_cores()
    with busy(cores):
        assert busy_now() > 0.7 * cores
        assert f"of {cores} processors" in (machine.warning() or "")


def test_a_spin_finds_what_others_leave() -> None:
    with busy(2 * num_cores()):
        assert spin(0.6) > 0.25 * num_cores()


def test_a_spin_takes_what_there_is() -> None:
    assert 0.0 <= spin(0.05) <= num_cores()


def test_ones_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own clock this process worked all the time, and so did nobody else."""
    monkeypatch.setattr(machine, "num_cores", lambda: 2)
    times = iter([CpuTimes(0.0, 0.0, 0.0), CpuTimes(1.0, 1.9, 2.0)])
    assert LoadWatch(lambda: next(times)).busy_elsewhere() == pytest.approx(0.1)


def test_no_warning_on_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "busy_now", lambda: machine.BUSY - 0.01)
    assert machine.warning() is None
    monkeypatch.setattr(machine, "busy_now", lambda: machine.BUSY)
    assert machine.warning() is not None


class Sometimes:
    """A target whose every other pair of forwards is slow."""

    def __init__(self) -> None:
        self.count = 0

    def dry_run(self, num_rows: int, context: int) -> bool:
        assert (num_rows, context) == (1, 9)
        self.count += 1
        time.sleep(0.02 if self.count % 6 else 0.001)
        return True


@pytest.mark.parametrize("known", [1.0, 1e-6])
def test_the_pace_is_the_median_against_the_quickest_known(known: float, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {1: ForwardCost(known, 0.0), 8: ForwardCost(known / 2, 0.0)}
    pace = forward_pace(Sometimes(), table, 9)  # type: ignore[arg-type]
    assert pace.usual >= 0.02
    assert pace.quickest == known if known < 0.001 else 0.001 <= pace.quickest < 0.02
    assert pace.slowdown > 1.0
