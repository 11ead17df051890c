"""Ways to draft in vLLM take turns: one server runs at a time, and what is asked can show who foresees what."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peers.drafting_in_vllm import AGAIN, NGRAM, OURS, PLAIN, REMEMBERING, SUFFIX, Load, beginnings, processes, verdicts
from peers.stopping import children, family, taking_turns

from paceline.bench.serve.prompts import ServePrompt
from paceline.bench.serve.sweep import RATE, Sweep, SweepPlan

CHILD = "import time; time.sleep(60)"
SERVER = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); time.sleep(60)"


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_all_but_one_server_are_stopped_with_their_workers() -> None:
    started = [subprocess.Popen([sys.executable, "-c", SERVER, "--port", str(port)]) for port in (8001, 8002, 8003)]
    try:
        servers = processes([f"http://127.0.0.1:{port}" for port in (8001, 8002, 8003)])
        assert list(servers.values()) == [one.pid for one in started]
        assert {one.pid for one in started} <= set(children(os.getpid()))
        families = [wait_for_family(one.pid) for one in started]
        with taking_turns(servers) as turns:
            for chosen, url in enumerate(servers):
                turns.give(url)
                for i, members in enumerate(families):
                    assert settled(members, i != chosen)
        assert settled([pid for members in families for pid in members], False)
    finally:
        for pid in [pid for one in started for pid in reversed(family(one.pid))]:
            os.kill(pid, 9)
        for one in started:
            one.wait()


def wait_for_family(pid: int) -> list[int]:
    give_up = time.monotonic() + 30
    while len(family(pid)) < 2 and time.monotonic() < give_up:
        time.sleep(0.01)
    return family(pid)


def settled(members: list[int], expected: bool) -> bool:
    """A signal takes effect soon, not at once."""
    give_up = time.monotonic() + 10
    while any(is_stopped(pid) != expected for pid in members) and time.monotonic() < give_up:
        time.sleep(0.01)
    return all(is_stopped(pid) == expected for pid in members)


def test_no_beginning_comes_twice() -> None:
    texts = beginnings(48)
    assert len(set(texts)) == len(texts) == 48
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize(("clients", "asked"), [(1, 14), (4, 14), (16, 32)])
def test_every_client_has_two_requests_at_least(clients: int, asked: int) -> None:
    prompts = [ServePrompt("copy", (i,), 8) for i in range(14)]
    assert len(Load(prompts, (PLAIN,), (1,), 14).asked(clients)) == asked


def test_ours_is_held_against_ngram_and_as_one_tenant_against_suffix() -> None:
    mix = Sweep(SweepPlan((1,), 1, 0), (PLAIN, NGRAM, SUFFIX, OURS, REMEMBERING), 14)
    mix.rounds = {(name, 1): [{RATE: rate}] for name, rate in zip(mix.names, (1.0, 1.5, 2.0, 1.8, 2.3), strict=True)}
    rest = Sweep(SweepPlan((1,), 1, 0), (PLAIN, AGAIN, NGRAM, OURS), 4)
    rest.rounds = {(name, 1): [{RATE: rate}] for name, rate in zip(rest.names, (1.0, 1.0, 0.9, 0.98), strict=True)}
    assert [line.is_reached for line in verdicts(mix, {"story": rest})] == [True, False, True, False]
