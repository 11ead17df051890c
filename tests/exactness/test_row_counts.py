"""Every number of rows in a forward, padded or not, and every place among them, gives a row the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exactness.conftest import Subjects
from exactness.decoding import RandomTrees, Recorder, decode
from exactness.subjects import job
from paceline.model.probe import ALWAYS, REFERENCE, WHILE_TIME_LASTS
from paceline.model.rows import TreeWork

both_dtypes = pytest.mark.parametrize(
    ("architecture", "dtype"), [("llama-odd", torch.float32), ("llama-wide-heads", torch.bfloat16)]
)


@both_dtypes
def test_every_row_count_from_1_to_40(subjects: Subjects, architecture, dtype):
    subject = subjects(architecture, dtype)
    one = job(125, 1, max_tokens=41, temperature=0.7)
    for rows in range(1, 41):
        drafter = RandomTrees(subject.plain, [one], rows, fill=True)
        recorder = Recorder(subject.target)
        traces = decode(recorder, [one], drafter, rows - 1)
        assert subject.plain.differences([one], traces) == [], f"at {rows} rows"
        assert rows in recorder.num_rows


def test_the_counts_above_run_both_padded_and_as_they_are(subjects: Subjects):
    proven = set(subjects("llama-odd").decoder.row_counts)
    assert proven & set(range(1, 41))
    assert set(range(1, 41)) - proven


@both_dtypes
def test_the_bits_of_a_row_depend_on_neither_the_proven_count_nor_its_place(subjects: Subjects, architecture, dtype):
    decoder = subjects(architecture, dtype).decoder
    rng = np.random.default_rng(3)
    sequences = [prefilled(decoder, rng, length) for length in (1, 63, 66, 130, 257)]
    trees = [TreeWork(s, tokens(rng, 4), [-1, 0, 0, 2]) for s in sequences]
    lone = [TreeWork(s, item.tokens[:1], [-1]) for s, item in zip(sequences, trees, strict=True)]
    plain = [decoder.forward([item])[0].tobytes() for item in lone]
    counts = decoder.row_counts
    reference = decoder.forward(trees).reshape(5, 4, -1)
    assert [rows[0].tobytes() for rows in reference] == plain
    for count in (c for c in counts if c >= 20):
        decoder.row_counts = (count,)
        for _ in range(3):
            order = rng.permutation(5)
            logits = decoder.forward([trees[i] for i in order]).reshape(5, 4, -1)
            assert logits.tobytes() == reference[order].tobytes(), f"at {count} rows, order {order}"
    decoder.row_counts = counts
    for sequence in sequences:
        decoder.pool.release(sequence)


def test_more_requests_than_rows_are_scored_in_several_forwards(subjects: Subjects):
    subject = subjects("llama-odd")
    jobs = [job(3 + i, i, 6) for i in range(21)]
    counts = subject.decoder.row_counts
    plain = [subject.plain[one] for one in jobs]
    try:
        subject.decoder.row_counts = tuple(count for count in counts if count <= 16)
        drafter = RandomTrees(subject.plain, jobs, fill=True)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter)) == []
    finally:
        subject.decoder.row_counts = counts
    assert all(trace.tokens for trace in plain)


def test_the_probe_keeps_the_count_that_others_are_compared_with(subjects: Subjects):
    proven = subjects("llama-odd").decoder.row_counts
    assert REFERENCE in proven
    assert set(proven) <= {REFERENCE, *ALWAYS, *WHILE_TIME_LASTS}
    assert list(proven) == sorted(proven)


def tokens(rng: np.random.Generator, count: int) -> list[int]:
    return [int(t) for t in rng.integers(0, 200, count)]


def prefilled(decoder, rng: np.random.Generator, length: int):
    sequence = decoder.pool.reserve(length + 64)
    decoder.prefill(sequence, tokens(rng, length))
    return sequence
