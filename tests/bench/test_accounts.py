"""`benchmarks/accounts.py`: what is drawn of the guard's accounts is what the clock says, and stays above the floor."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from accounts import AccountingPacer, app
from typer.testing import CliRunner

from law.support import target_of
from paceline.engine.engine import Engine
from paceline.pacing.guard import Guard
from paceline.testing import ScriptedDrafter
from pacing.simulated import Costs, TimedDrafter, World, request_of, world

VOCAB, STEP = 6, 1e-2  # seconds of a plain step


def accounted(name: str, num_requests: int = 3) -> tuple[World, AccountingPacer, list[float]]:
    """Requests decoded one after the other, with the clock after each of their steps."""
    place = world(target_of(VOCAB).logits, VOCAB, Costs(base=STEP, per_row=0.3))
    pacer, times = AccountingPacer(place.pacer), []
    place.engine = Engine(place.target, pacer, clock=place.clock)
    script = getattr(ScriptedDrafter, name)(place.target)._script
    drafter = TimedDrafter(name, script, place.clock, 0.1 * STEP)
    for seed in range(num_requests):
        place.run([request_of(VOCAB, 90, [drafter], seed)], times.append)
    return place, pacer, times


@pytest.mark.parametrize("name", ["perfect", "adversarial"])
def test_what_is_drawn_is_what_the_clock_says(name: str) -> None:
    place, pacer, times = accounted(name)
    engine = place.pacer.guard.engine
    last = pacer.engine[-1]
    assert last.num_tokens == 3 * 90
    assert last.by_the_clock == pytest.approx(engine.plain - sum(times), abs=1e-5 * len(times))
    assert last.floor == pytest.approx(-(0.02 * engine.plain + 32 * STEP), rel=1e-3)
    assert (last.by_the_clock > 30 * STEP) == (name == "perfect")
    for account in (pacer.engine, *pacer.requests):
        assert all(balance.by_the_books >= balance.floor for balance in account)
    for account in pacer.requests:
        assert account[0].by_the_clock == account[0].by_the_books == 0.0
        assert account[0].floor == pytest.approx(-4 * STEP, rel=0.05)  # of t1 as it is estimated by then
    assert [account[-1].num_tokens for account in pacer.requests] == [90, 180, 270]


def test_a_guard_that_lets_all_pass_is_seen_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "allowance", lambda guard, requests: 1.0)
    _, pacer, _ = accounted("adversarial", num_requests=9)
    assert any(balance.by_the_books < balance.floor for account in pacer.requests for balance in account)


def test_the_picture_is_drawn_and_the_clock_compared(tmp_path: Path) -> None:
    out = tmp_path / "accounts.svg"
    done = CliRunner().invoke(app, ["--model", "bundled", "--max-tokens", "9", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert [line.partition(":")[0] for line in done.output.splitlines()[-3:]] == ["saved", "plain", "least balance"]
    text = "".join(ElementTree.parse(out).getroot().itertext())
    assert all(word in text for word in ("noise", "maths", "saved, by the clock"))
