"""Layers with a state: their own logits and text, the same bits with trees, neighbours, kept beginnings, preemption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactness.decoding import RandomTrees, decode
from exactness.greedy import assert_greedy
from exactness.models import RECURRENT
from exactness.subjects import Subject, job
from exactness.test_parting_prefixes import load_with, parting
from exactness.test_preemption import Played, jobs_of
from paceline.model import states
from paceline.model.states import SequenceState, StatePool
from paceline.native.library import library
from paceline.native.states import StateRows

GREEDY = job(150, 7, max_tokens=45)
PATHS = ["native", "modules"]
HAVE_NATIVE = library() is not None and library().is_preferred


def setting(path: str) -> str:
    return "" if path == "native" else "0"


@pytest.fixture(scope="module")
def loaded() -> Iterator[Callable[..., Subject]]:
    """`loaded(architecture, path, dtype)`, each once."""
    known: dict[tuple[Any, ...], Subject] = {}

    def one(architecture: str, path: str = "native", dtype: torch.dtype = torch.float32) -> Subject:
        key = (architecture, path, dtype)
        if key not in known:
            known[key] = load_with(setting(path), architecture, dtype=dtype)
        return known[key]

    yield one
    for subject in known.values():
        subject.llm.close()


@pytest.mark.parametrize("architecture", RECURRENT)
def test_logits_and_text_are_those_of_the_model_itself(loaded: Callable[..., Subject], architecture: str) -> None:
    subject = loaded(architecture)
    plain = subject.plain[GREEDY]
    theirs = subject.own_logits([*GREEDY.prompt, *plain.tokens[:-1]])[len(GREEDY.prompt) - 1 :]
    error = np.linalg.norm(np.stack(plain.rows) - theirs) / np.linalg.norm(theirs)
    assert error < 1e-5
    assert_greedy(subject.model, GREEDY.prompt, 45, plain.tokens)


@pytest.mark.skipif(not HAVE_NATIVE, reason="no native kernels, or not in use")
@pytest.mark.parametrize("architecture", sorted({*RECURRENT} - {"minimax"}))  # its router is not the kernels'
def test_a_step_is_one_native_call(loaded: Callable[..., Subject], architecture: str) -> None:
    assert loaded(architecture).decoder.is_exact_by_construction


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", RECURRENT)
def test_trees_and_neighbours_change_no_bit(
    loaded: Callable[..., Subject], architecture: str, dtype: torch.dtype
) -> None:
    subject = loaded(architecture, "native", dtype)
    jobs = [job(120, 3, 21, temperature=1.0), job(1, 4, 9, temperature=0.7), job(197, 5, 13), job(63, 6, 7)]
    for seed, budget in enumerate((5, 15)):
        drafter = RandomTrees(subject.plain, jobs, seed, fill=seed == 0)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, budget)) == []


@pytest.mark.parametrize("architecture", ["qwen3-next", "lfm2"])
def test_trees_and_neighbours_change_no_bit_of_the_modules(loaded: Callable[..., Subject], architecture: str) -> None:
    subject = loaded(architecture, "modules")
    jobs = [job(67, 3, 7, temperature=1.0), job(1, 4, 7), job(130, 5, 5)]
    for seed, budget in enumerate((3, 8)):
        drafter = RandomTrees(subject.plain, jobs, seed, fill=seed == 0)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, budget)) == []


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shared=st.integers(0, 270),
    own=st.lists(st.integers(1, 230), min_size=2, max_size=4),
    seed=st.integers(0, 50),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_wherever_prompts_part(
    loaded: Callable[..., Subject], shared: int, own: list[int], seed: int, temperature: float
) -> None:
    subject = loaded("qwen3-next")
    jobs = parting(shared, own, 10 * seed, temperature=temperature)
    drafter = RandomTrees(subject.plain, jobs, seed)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter)) == []


def test_a_beginning_is_read_once(loaded: Callable[..., Subject]) -> None:
    """The state at the end of a prompt's last page is kept, and where two have parted from then on."""
    llm = loaded("bamba").llm
    start = list(job(200, 90).prompt)

    def found(own: int) -> int:
        [out] = llm.generate([[*start, *job(150, own).prompt]], max_tokens=1, tenant="reading")
        return out.stats.num_cached_tokens

    assert found(91) == 0
    assert found(91) == 320  # the last page of 349 tokens
    assert found(92) == 0  # read again: nobody knew that they would part at 192
    assert found(93) == 192


@pytest.mark.parametrize(("path", "architecture"), [("native", "qwen3-next"), ("modules", "lfm2")])
def test_preempted_requests_resume_with_the_same_bits(path: str, architecture: str) -> None:
    subject = load_with(setting(path), architecture, cache_tokens=960)
    assert subject.pool.reserve(960 - 64 * 6) is not None
    jobs = jobs_of(5, 4, 1.0)
    played = Played(subject, jobs, 5, budget=7)
    assert played.num_preemptions > 0
    assert played.differences(subject, jobs) == []
    subject.llm.close()


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "accepted rows are not added": lambda patched: patched.setattr(SequenceState, "accept", lambda self, rows: None),
    "the first rows are taken for the accepted ones": lambda patched: patched.setattr(
        SequenceState, "accept", lambda self, rows, real=SequenceState.accept: real(self, range(len(rows)))
    ),
    "all rows are taken for a chain": lambda patched: patched.setattr(
        states,
        "StateRows",
        lambda *given: StateRows(*given[:4], list(range(-1, len(given[4]) - 1)), *given[5:]),
    ),
    "a fresh state is what another left": lambda patched: patched.setattr(
        states, "StateRows", lambda *given: StateRows(*given[:6], False, given[7])
    ),
    "traces stay in one half": lambda patched: patched.setattr(
        states, "StateRows", lambda *given: StateRows(*given[:2], 0, *given[3:])
    ),
    "what is kept is another's": lambda patched: patched.setattr(
        StatePool, "restore", lambda self, state, serial: state.restored()
    ),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    loaded: Callable[..., Subject], fault: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = loaded("lfm2", path)
    start = job(130, 77).prompt
    jobs = [parting(0, [75, 9], seed=40, max_tokens=12)[i] for i in range(2)]
    jobs += [type(jobs[0])((*start, *one.prompt), {"max_tokens": 9}, 9) for one in jobs]
    expected = [subject.plain[one].tokens for one in jobs]  # also keeps beginnings
    assert all(expected)
    drafter = RandomTrees(subject.plain, jobs, 3, fill=True)
    FAULTS[fault](monkeypatch)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 7)) != []


def test_requests_wait_for_a_state_to_be_free() -> None:
    with patch.object(states, "_MOST", 4):
        subject = Subject("lfm2")
    jobs = [job(length, 3, 9, temperature=length % 2) for length in (70, 20, 5, 131, 64, 9, 33)]
    assert subject.pool.states is not None
    assert subject.pool.states.num_slots == 4
    assert subject.plain.differences(jobs, decode(subject.target, jobs, RandomTrees(subject.plain, jobs))) == []
    subject.llm.close()
