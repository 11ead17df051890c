"""The end of the context, and rotary scalings that change with the length of a text."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import paceline
from exactness.decoding import Job, RandomTrees, decode
from exactness.greedy import assert_greedy
from exactness.models import VOCAB
from exactness.subjects import Subject, job
from paceline.model.rows import TreeWork

SHORT, LONGEST = 96, 384
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": SHORT,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
}
# The model, and the contexts that a request may be pinned to.
SCALED: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": SHORT}, (96, 192, 384)),
    "longrope": (
        "phi3",
        {"rope_parameters": LONG, "max_position_embeddings": LONGEST, "original_max_position_embeddings": SHORT},
        (96, 384),
    ),
    "dynamic in some layers": (
        "gemma3",
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {**DYNAMIC, "factor": 3.9},
            },
            "max_position_embeddings": SHORT,
        },
        (96, 192, 374),
    ),
}
# Others go by the position alone: 128 positions as the model was trained, then 512.
BEHIND: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 128},
    "llama3": {
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}


@pytest.fixture(scope="module", params=SCALED)
def scaled(request: pytest.FixtureRequest) -> Subject:
    architecture, changes, _ = SCALED[request.param]
    return Subject(architecture, **changes)


def own_rows(subject: Subject, one: Job, length: int) -> np.ndarray:
    """The model's own logits behind a job's tokens in a text of `length` tokens that begins as the job's does."""
    text = [*one.prompt, *subject.plain[one].tokens]
    logits = subject.own_logits([*text, *[0] * (length - len(text))])
    return logits[len(one.prompt) - 1 : len(text) - 1]


def test_a_scaling_that_changes_with_the_length_is_pinned_and_said_so(request: pytest.FixtureRequest, scaled: Subject):
    known = SCALED[request.node.callspec.params["scaled"]][2]
    assert (scaled.llm.info.max_length, scaled.target.contexts) == (known[-1], known)
    assert f"the shortest of {', '.join(map(str, known))} tokens" in scaled.llm.info.note
    assert scaled.llm.info.note in scaled.llm.info.verdict


def test_a_request_beyond_the_longest_context_is_refused(scaled: Subject):
    longest = scaled.target.max_length
    assert len(scaled.llm.generate([1] * (longest - 4), max_tokens=4).token_ids) == 4
    with pytest.raises(paceline.RequestError, match=f"context of {longest}"):
        scaled.llm.generate([1] * (longest - 4), max_tokens=5)


def test_a_request_is_pinned_to_what_it_may_reach(scaled: Subject):
    """The rows of each are the model's own in a text that is as long as its context."""
    for number, length in enumerate(scaled.target.contexts):
        for one in (job(length - 31, number, 31), job(length - 90, number, 9 if not number else 90 - 8)):
            assert scaled.decoder.pin(one.request(scaled.target)) == number
            ours = np.stack(scaled.plain[one].rows)
            np.testing.assert_allclose(ours, own_rows(scaled, one, length), rtol=0, atol=1e-4)


def test_the_contexts_differ(scaled: Subject):
    jobs = [Job(job(60, 7).prompt, {"max_tokens": length - 60}, length) for length in scaled.target.contexts]
    first = [scaled.plain[one].rows[0] for one in jobs]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.pairwise(first))


def test_neighbours_of_other_contexts_change_no_bit(scaled: Subject):
    """Requests of all contexts share forwards; some reach the end of theirs, and their drafts beyond it."""
    end = scaled.target.max_length
    jobs = [job(3, 1, 30), job(66, 2, 30), job(90, 3, 6), job(1, 4, 95, temperature=1.0), job(80, 5, 17)]
    jobs += [job(129, 6, 40), job(end - 17, 7, 17, temperature=0.7), job(191, 8, 9)]
    for seed, budget in enumerate((7, 23)):
        drafter = RandomTrees(scaled.plain, jobs, seed, fill=True)
        assert scaled.plain.differences(jobs, decode(scaled.target, jobs, drafter, budget)) == []


def test_rows_beyond_the_context_change_no_bit_of_the_others(scaled: Subject):
    end = scaled.target.max_length
    sequence = scaled.pool.reserve(end + 64)
    assert sequence is not None
    sequence.pin = len(scaled.target.contexts) - 1
    scaled.decoder.prefill(sequence, [i % VOCAB for i in range(end - 6)])
    alone = scaled.decoder.forward([TreeWork(sequence, [7], [-1])])
    beyond = scaled.decoder.forward([TreeWork(sequence, list(range(7, 37)), range(-1, 29))])
    scaled.pool.release(sequence)
    assert beyond[0].tobytes() == alone[0].tobytes()


def test_a_page_is_found_by_requests_of_its_context_alone(scaled: Subject):
    prompt = job(75, 9).prompt
    reached = [length - 75 for length in (SHORT, SHORT, scaled.target.max_length, scaled.target.max_length)]
    outs = [scaled.llm.generate(list(prompt), max_tokens=count, ignore_eos=True, drafters="none") for count in reached]
    known = 74 if scaled.decoder.is_exact_by_construction else 64
    assert [out.stats.num_cached_tokens for out in outs] == [0, known, 0, known]
    for first, again in (outs[:2], outs[2:]):
        assert first.token_ids == again.token_ids
        assert [token.logprob for token in first.tokens] == [token.logprob for token in again.tokens]


def test_a_preempted_request_keeps_its_context(scaled: Subject):
    jobs = [job(40, 10, 50), job(60, 11, 120), job(62, 12, 100), job(20, 13, 170)]
    drafter = RandomTrees(scaled.plain, jobs, 3, "never")
    preempted = []
    held = scaled.pool.reserve(scaled.pool.num_free_tokens - 5 * 64)
    assert held is not None
    found = decode(scaled.target, jobs, drafter, 7, lambda engine: preempted.append(engine.load().num_preemptions))
    scaled.pool.release(held)
    assert preempted[-1] > 0
    assert scaled.plain.differences(jobs, found) == []


def test_a_request_without_a_limit_has_the_shortest_context_with_room_for_the_usual_one(scaled: Subject):
    short = scaled.llm.generate([5] * 20, max_tokens=None, ignore_eos=True, drafters="none")
    assert 20 + len(short.token_ids) == next(n for n in scaled.target.contexts if n >= 20 + 256)
    full = scaled.llm.generate([5] * 300, max_tokens=None, ignore_eos=True, drafters="none")
    assert 300 + len(full.token_ids) == scaled.target.max_length


def test_greedy_text_is_what_transformers_generates_where_it_does_not_change_its_mind():
    """It switches factors when a text grows beyond the first length: a prompt on either side stays there."""
    architecture, changes, _ = SCALED["longrope"]
    subject = Subject(architecture, **changes)
    for one in (job(40, 1, 50), job(SHORT + 4, 2, 60), job(300, 3, 40)):
        assert_greedy(subject.model, one.prompt, len(subject.plain[one].tokens), subject.plain[one].tokens)


@pytest.mark.parametrize("kind", BEHIND)
def test_scalings_by_position_are_the_models_own_behind_its_first_length(kind: str):
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **BEHIND[kind]}
    subject = Subject("llama", rope_parameters=rope, max_position_embeddings=512)
    jobs = [job(120, 1, 30), job(300, 2, 25, temperature=1.0), job(470, 3, 42), job(5, 4, 9)]
    drafter = RandomTrees(subject.plain, jobs, 2)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 11)) == []
    for one in jobs:
        ours = np.stack(subject.plain[one].rows)
        np.testing.assert_allclose(ours, own_rows(subject, one, 512), rtol=0, atol=1e-4)


def test_a_position_table_may_end_anywhere():
    """No multiple of a chunk: the padding of the last chunk, and drafts at the end, stand beyond the table."""
    subject = Subject("gpt2", n_positions=101)
    jobs = [job(70, 1, 31), job(100, 2, 1), job(96, 3, 5, temperature=1.0), job(2, 4, 99)]
    drafter = RandomTrees(subject.plain, jobs, fill=True)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 15)) == []
    assert [len(subject.plain[one].tokens) for one in jobs] == [31, 1, 5, 99]
