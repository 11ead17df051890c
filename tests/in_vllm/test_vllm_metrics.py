"""Counters of drafting in vLLM: what a step and a request add, and who counts."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from paceline.engine.request import StepOutcome, Token
from paceline.engine.stats import DrafterStats, Stats
from paceline.engine.tree import DraftTree
from paceline.vllm.metrics import COUNTERS, Metrics

_names = (f"model {number}" for number in count())


def config(rank: int = 0, tensor_parallel_size: int = 1) -> Any:
    parallel = SimpleNamespace(rank=rank, tensor_parallel_size=tensor_parallel_size, data_parallel_index=1)
    return SimpleNamespace(model_config=SimpleNamespace(served_model_name=next(_names)), parallel_config=parallel)


def value(of: Any, what: str, **labels: str) -> float | None:
    labels = {"model_name": of.model_config.served_model_name, "engine": "1", **labels}
    return REGISTRY.get_sample_value(f"paceline:{what}_total", labels)


def outcome(sources: list[str], num_accepted: int, num_emitted: int) -> StepOutcome:
    length = len(sources)
    tree = DraftTree(tuple(range(length)), tuple(range(-1, length - 1)), (0.5,) * length, tuple(sources))
    tokens = tuple(Token(i, "", "target", 0.0, 0.0) for i in range(num_emitted))
    return StepOutcome(SimpleNamespace(), tree, tuple(range(num_accepted)), tokens, np.empty((0, 0), np.float32))


def test_a_step_counts_drafts_by_drafter_and_seconds() -> None:
    asked = config()
    metrics = Metrics.of(asked)
    metrics.observed([outcome(["suffix", "suffix", "history"], 2, 3), outcome([], 0, 1)], 0.25)
    metrics.observed([outcome(["history", "history"], 2, 1)], 0.5)  # the first one was an end token
    assert value(asked, "drafter_draft_tokens", drafter="suffix") == 2
    assert value(asked, "drafter_accepted_tokens", drafter="suffix") == 2
    assert value(asked, "drafter_draft_tokens", drafter="history") == 3
    assert value(asked, "drafter_accepted_tokens", drafter="history") == 1
    assert value(asked, "drafting_seconds") == 0.75
    assert value(asked, "failures") == 0


def test_a_request_counts_what_its_drafters_did_and_why_they_stopped() -> None:
    asked = config()
    metrics = Metrics.of(asked)
    stats = Stats(drafters={"suffix": DrafterStats(num_proposals=5, seconds=0.125, num_failures=1)})
    stats.pacing = {"stops": {"guard": 3, "idle": 2}}
    for _ in range(2):
        metrics.finished(SimpleNamespace(stats=stats))
    metrics.finished(SimpleNamespace(stats=Stats()))  # before there was a pacer
    metrics.failed()
    assert value(asked, "drafter_proposals", drafter="suffix") == 10
    assert value(asked, "drafter_seconds", drafter="suffix") == 0.25
    assert value(asked, "drafter_failures", drafter="suffix") == 2
    assert value(asked, "pacer_stops", reason="guard") == 6
    assert value(asked, "failures") == 1


@pytest.mark.parametrize(("rank", "is_counting"), [(0, True), (1, False), (2, True), (3, False)])
def test_of_workers_that_draft_the_same_one_counts(rank: int, is_counting: bool) -> None:
    asked = config(rank, tensor_parallel_size=2)
    Metrics.of(asked).observed([outcome(["suffix"], 1, 2)], 1.0)
    assert value(asked, "drafter_draft_tokens", drafter="suffix") == (1 if is_counting else None)


_CHILD = """
from paceline.vllm.metrics import Metrics
Metrics("m").failed()
Metrics("m").failed()
"""
_PARENT = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_another_process_shows_what_this_one_counts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for code in (_CHILD, _CHILD):
        subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run([sys.executable, "-c", _PARENT], check=True, capture_output=True, text=True).stdout
    assert 'paceline:failures_total{engine="0",model_name="m"} 4.0' in shown.splitlines()


def test_every_counter_says_what_it_is() -> None:
    assert all(text.endswith(".") for text, _ in COUNTERS.values())
