"""The promise, bit for bit: trees, budgets, drafters, neighbours and parameters change no logit and no token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactness.conftest import Subjects
from exactness.decoding import RandomTrees, decode
from exactness.subjects import JOBS, LENGTHS, job

SUBJECTS = [
    ("llama-odd", torch.float32),
    ("llama-multi-query", torch.float32),
    ("gemma2", torch.float32),
    ("llama-wide-heads", torch.bfloat16),
    ("gpt2", torch.bfloat16),
]
every_subject = pytest.mark.parametrize(("architecture", "dtype"), SUBJECTS, ids=lambda value: str(value))
a_few = settings(
    max_examples=9,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@every_subject
@a_few
@given(
    jobs=st.lists(st.sampled_from(JOBS), min_size=1, max_size=5),
    budget=st.integers(0, 39),
    style=st.sampled_from(["mixed", "mixed", "always", "never"]),
    fill=st.booleans(),
    seed=st.integers(0, 999),
)
def test_trees_and_neighbours_change_no_bit(subjects: Subjects, architecture, dtype, jobs, budget, style, fill, seed):
    subject = subjects(architecture, dtype)
    drafter = RandomTrees(subject.plain, jobs, seed, style, fill)
    traces = decode(subject.target, jobs, drafter, budget)
    assert subject.plain.differences(jobs, traces) == []


@every_subject
def test_a_batch_without_drafts_changes_no_bit(subjects: Subjects, architecture, dtype):
    subject = subjects(architecture, dtype)
    for jobs in (JOBS, JOBS[::-1], JOBS[::3]):
        assert subject.plain.differences(jobs, decode(subject.target, jobs)) == []


@pytest.mark.parametrize(("architecture", "dtype"), SUBJECTS[::2], ids=lambda value: str(value))
def test_the_right_path_is_accepted_to_every_depth_up_to_a_whole_tile(subjects: Subjects, architecture, dtype):
    """Depths beyond what chance finds; the path crosses one or two ends of tiles in a single step."""
    subject = subjects(architecture, dtype)
    for length in (1, 64, 190):
        one = job(length, 70, 70)
        depths = set()
        for budget in (2, 5, 13, 31, 63):
            drafter = RandomTrees(subject.plain, [one], budget, "always", fill=True)
            [trace] = decode(subject.target, [one], drafter, budget)
            assert subject.plain.differences([one], [trace]) == []
            depths.add(max(trace.accepted))
        assert depths == {2, 5, 13, 31, 63}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_prompt_of_any_length_beside_any_other(subjects: Subjects, length):
    subject = subjects("llama-odd")
    jobs = [job(length, 80, 5), job(398 - length, 81, 7, temperature=1.0), job(length, 82, 3)]
    drafter = RandomTrees(subject.plain, jobs, length, fill=True)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 9)) == []


def test_runs_are_long_and_varied_enough_to_tell(subjects: Subjects):
    """What the tests above compare: many different tokens, and paths accepted to odd depths."""
    subject = subjects("llama-odd")
    assert len({token for one in JOBS for token in subject.plain[one].tokens}) > 100
    accepted = set()
    for seed in range(6):
        drafter = RandomTrees(subject.plain, JOBS, seed, fill=True)
        accepted |= {n for trace in decode(subject.target, JOBS[seed::6], drafter, 20) for n in trace.accepted}
    assert {0, 1, 2, 3, 5, 7} <= accepted
