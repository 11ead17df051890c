"""Busy processes that surely end, fresh processes that say what failed, and `paceline bench busy` over both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from here import Here

from paceline.bench import busy, busy_sides
from paceline.bench.busy import BusyPlan, BusyRun, busy_table
from paceline.bench.fresh import FreshProcess
from paceline.bench.names import AUTO, GENERATE, PLAIN
from paceline.bench.spinning import busy_processes
from paceline.bench.subject import SubjectOptions
from paceline.errors import StateError

HOLD = """
import signal, sys, time
from paceline.bench.spinning import busy_processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
with busy_processes(2) as ids:
    print(*ids, flush=True)
    time.sleep(600)
"""
SERVE = """
import os, sys
from contextlib import contextmanager
from paceline.errors import ConfigError
@contextmanager
def serve(fail="", place=""):
    if fail == "open": raise ConfigError("cannot open")
    if fail == "die": raise RuntimeError("died at once")
    print("noise on stdout")
    def answer(count):
        if count < 0: raise ConfigError("a negative count")
        if count > 9: os._exit(7)
        return {"doubled": 2 * count, "mark": os.environ.get("MARK")}
    yield {"ready": True}, answer
    if place: open(place, "w").write("closed")
"""
SIDES = """
from contextlib import contextmanager
from paceline.errors import ConfigError
@contextmanager
def paceline_side(model, **settings):
    raise ConfigError(f"no model in the folder {model!r}")
    yield
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # reaped later


def assert_gone(ids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(map(is_alive, ids)):
        assert time.monotonic() < deadline, ids
        time.sleep(0.05)


def test_busy_processes_end_with_the_block_also_by_an_error() -> None:
    with busy_processes(2) as ids:
        assert all(map(is_alive, ids))
    assert_gone(ids)
    with pytest.raises(KeyboardInterrupt), busy_processes(1) as ids:
        raise KeyboardInterrupt
    assert_gone(ids)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_busy_processes_end_with_whoever_started_them(sign: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        ids = [int(word) for word in holder.stdout.readline().split()]
        assert len(ids) == 2
        assert all(map(is_alive, ids))
        holder.send_signal(sign)
        holder.wait(20)
    assert_gone(ids)


@pytest.fixture
def serving(tmp_path: Path) -> Callable[..., FreshProcess]:
    (tmp_path / "served.py").write_text(SERVE)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    return lambda **settings: FreshProcess("served:serve", settings, {"PYTHONPATH": path, "MARK": "own"})


def test_a_fresh_process_answers_and_closes_what_it_opened(serving, tmp_path: Path) -> None:
    place = tmp_path / "closed"
    with serving(place=str(place)) as process:
        assert process.opened == {"ready": True}
        assert [process.ask(count=i) for i in (2, 3)] == [{"doubled": 4, "mark": "own"}, {"doubled": 6, "mark": "own"}]
        assert not place.exists()
    assert place.read_text() == "closed"


@pytest.mark.parametrize(("fail", "said"), [("open", "failed: cannot open"), ("die", "RuntimeError: died at once")])
def test_one_that_does_not_open_says_why(serving, fail: str, said: str) -> None:
    with pytest.raises(StateError, match=said), serving(fail=fail):
        pass


@pytest.mark.parametrize(("count", "said"), [(-1, "a negative count"), (10, "exit code 7|noise on stdout")])
def test_one_that_fails_at_a_question_says_why(serving, count: int, said: str) -> None:
    with pytest.raises(StateError, match=said), serving() as process:
        process.ask(count=count)


def test_one_that_is_left_by_an_error_is_killed(serving, tmp_path: Path) -> None:
    place = tmp_path / "closed"
    process = serving(place=str(place))
    with pytest.raises(KeyboardInterrupt), process:
        raise KeyboardInterrupt
    assert_gone([process._process.pid])
    assert not place.exists()


def run_of(seconds: dict[str, dict[int, list[float]]]) -> BusyRun:
    plan = BusyPlan("p", 2, 4, 3, (1,))
    outputs = {name: [[1, 2, 3, 4]] for name in seconds}
    return BusyRun(SubjectOptions("m", "auto", "cpu"), plan, {"path": "made-up"}, "float32", seconds, outputs)


MADE_UP = {
    PLAIN: {0: [1.0, 2.0, 1.5], 1: [3.0, 6.0, 4.5]},
    AUTO: {0: [0.5, 1.0, 0.5], 1: [1.0, 1.0, 1.0]},
    GENERATE: {0: [4.0, 4.0, 4.0], 1: [9.0, 9.0, 9.0]},
}


def test_figures_are_medians_over_rounds() -> None:
    run = run_of(MADE_UP)
    assert run.tokens_per_second(PLAIN, 0) == pytest.approx((4 / 1.5, 2.0, 4.0))
    alone = run.times_alone(PLAIN, 1)
    assert (alone.value, alone.low, alone.high) == pytest.approx((3.0, 3.0, 3.0))  # rounds are drawn jointly
    assert run.over_transformers(PLAIN, 1).value == pytest.approx(2.0)
    cells = {(cell["contender"], cell["busy_processes"]): cell for cell in run.as_dict()["cells"]}
    assert len(cells) == 6
    assert cells[GENERATE, 1]["times_alone"]["value"] == pytest.approx(2.25)
    assert [row[:2] for row in busy_table(run).rows][:2] == [(PLAIN, "none"), (PLAIN, "1 busy")]


def test_another_token_is_a_mismatch_but_not_in_transformers() -> None:
    run = run_of(MADE_UP)
    run.outputs[GENERATE] = [[9]]
    assert run.mismatches() == []
    run.outputs[AUTO].append([1, 2, 3, 5])
    assert run.mismatches() == [f"{AUTO}: not the tokens of plain decoding"]


def test_all_sides_take_turns_beside_busy_processes(
    bench: Callable[..., Result], tiny: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[int] = []

    def counted(count: int):
        beside.append(count)
        return busy_processes(count)

    def half_fresh(serve: str, *how: Any) -> Any:
        return (FreshProcess if "paceline_side" in serve else Here)(serve, *how)

    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(busy, "busy_processes", counted)
    monkeypatch.setattr(busy, "FreshProcess", half_fresh)
    monkeypatch.setattr(busy_sides.transformers_logging, "set_verbosity_error", lambda: None)  # of the whole process
    file = tmp_path / "busy.json"
    small = ("--max-tokens", 6, "--repeats", 2, "--beside", "1", "--threads", 1)
    result = bench("busy", "--model", tiny, *small, "--json", file)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert beside == [0, 1, 0, 1]
    assert found["kind"] == "busy"
    assert found["same_tokens"]
    assert len(found["tokens"]) == 6
    assert found["numerics"]["threads"] == 1
    assert [len(cell["seconds"]) for cell in found["cells"]] == [2] * 6
    for word in (PLAIN, AUTO, GENERATE, "times the time alone", "1 busy"):
        assert word in result.output


@pytest.mark.parametrize(("args", "said"), [(["--beside", "0"], "at least 1"), (["--task", "x"], "tasks has 'x'")])
def test_mistakes_are_said(bench: Callable[..., Result], args: list[str], said: str) -> None:
    result = bench("busy", *args)
    assert result.exit_code
    assert said in str(result.exception)


def test_a_side_that_cannot_be_had_is_named(
    bench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sides.py").write_text(SIDES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    monkeypatch.setattr(busy, "_SIDES", "sides")
    result = bench("busy", "--model", "nowhere")
    assert isinstance(result.exception, StateError)
    assert "paceline_side failed: no model in the folder 'nowhere'" in str(result.exception)
