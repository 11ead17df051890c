"""The end of the context, and rotary scalings that would change with the longest neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import paceline
from exactness.decoding import RandomTrees, decode
from exactness.subjects import Subject, job
from paceline.model.rows import TreeWork

PINNED = 96
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": PINNED,
    "short_factor": [1.0] * 8,
    "long_factor": [3.0] * 8,
}
SCALED: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": PINNED}),
    "longrope": (
        "phi3",
        {"rope_parameters": LONG, "max_position_embeddings": 384, "original_max_position_embeddings": PINNED},
    ),
    "dynamic in some layers": (
        "gemma3",
        {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {**DYNAMIC, "original_max_position_embeddings": PINNED},
            },
            "max_position_embeddings": 384,
        },
    ),
}


@pytest.fixture(scope="module", params=SCALED)
def scaled(request: pytest.FixtureRequest) -> Subject:
    architecture, changes = SCALED[request.param]
    return Subject(architecture, **changes)


def test_a_length_dependent_scaling_is_pinned_and_said_so(scaled: Subject):
    assert scaled.llm.info.max_length == PINNED
    assert f"the context is pinned to {PINNED}" in scaled.llm.info.note
    assert scaled.llm.info.note in scaled.llm.info.verdict


def test_a_request_beyond_the_pinned_context_is_refused(scaled: Subject):
    assert len(scaled.llm.generate([1] * 90, max_tokens=6).token_ids) == 6
    with pytest.raises(paceline.RequestError, match=f"context of {PINNED}"):
        scaled.llm.generate([1] * 90, max_tokens=7)


def test_a_long_neighbour_changes_no_bit(scaled: Subject):
    """Neighbours reach the end of the context, and their drafts beyond it."""
    jobs = [job(3, 1, 30), job(66, 2, 30), job(90, 3, 6), job(1, 4, 95, temperature=1.0)]
    for seed, budget in enumerate((7, 15)):
        drafter = RandomTrees(scaled.plain, jobs, seed, fill=True)
        assert scaled.plain.differences(jobs, decode(scaled.target, jobs, drafter, budget)) == []


def test_rows_beyond_the_context_change_no_bit_of_the_others(scaled: Subject):
    sequence = scaled.pool.reserve(PINNED + 64)
    assert sequence is not None
    scaled.decoder.prefill(sequence, list(range(90)))
    alone = scaled.decoder.forward([TreeWork(sequence, [7], [-1])])
    beyond = scaled.decoder.forward([TreeWork(sequence, list(range(7, 37)), range(-1, 29))])
    scaled.pool.release(sequence)
    assert beyond[0].tobytes() == alone[0].tobytes()


def test_the_pinned_logits_are_the_models_own(scaled: Subject):
    one = job(70, 5, 26)
    plain = scaled.plain[one]
    theirs = scaled.own_logits([*one.prompt, *plain.tokens[:-1]])[69:]
    np.testing.assert_allclose(np.stack(plain.rows), theirs, rtol=0, atol=1e-4)


def test_a_position_table_may_end_anywhere():
    """No multiple of a chunk: the padding of the last chunk, and drafts at the end, stand beyond the table."""
    subject = Subject("gpt2", n_positions=101)
    jobs = [job(70, 1, 31), job(100, 2, 1), job(96, 3, 5, temperature=1.0), job(2, 4, 99)]
    drafter = RandomTrees(subject.plain, jobs, fill=True)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 15)) == []
    assert [len(subject.plain[one].tokens) for one in jobs] == [31, 1, 5, 99]
