"""Quantised models: the same bits whatever is drafted, batched or preempted, and the values of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from exactness.decoding import RandomTrees, decode
from exactness.quantized import MODELS, QuantizedSubject, Rounded
from exactness.subjects import JOBS, job
from exactness.test_kept_proofs import load, was_proved
from exactness.test_native import stored
from exactness.test_preemption import PAGES, Played, jobs_of
from paceline.errors import ModelError
from paceline.formats.blocks import BlockRows
from paceline.formats.checkpoint import StoredWeight
from paceline.model.building import build
from paceline.model.forward import ROW_COUNTS, RecordedForward
from paceline.model.loading import load_target
from paceline.model.proof import proof_file
from paceline.model.rows import TreeWork
from paceline.native.library import VARIABLE, library

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
every_model = pytest.mark.parametrize("architecture", MODELS)
Subjects = Callable[[str], QuantizedSubject]


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    known: dict[str, QuantizedSubject] = {}

    def subject(architecture: str) -> QuantizedSubject:
        if architecture not in known:
            known[architecture] = QuantizedSubject(architecture)
        return known[architecture]

    return subject


def drawn(count: int, seed: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(0, 200, count)]


@every_model
def test_every_row_count_is_exact_in_one_native_call(subjects: Subjects, architecture: str):
    decoder = subjects(architecture).decoder
    assert isinstance(decoder._forward, RecordedForward)
    assert decoder.is_exact_by_construction
    assert decoder.row_counts == ROW_COUNTS
    sequence = decoder.pool.reserve(300)
    decoder.prefill(sequence, drawn(131, 7))
    tokens, parents = drawn(64, 8), [-1, *((i - 1) // 2 for i in range(1, 64))]
    whole = decoder.forward([TreeWork(sequence, tokens, parents)])
    for count in range(1, 64):
        assert np.array_equal(decoder.forward([TreeWork(sequence, tokens[:count], parents[:count])]), whole[:count])
    decoder.pool.release(sequence)


@every_model
def test_trees_and_neighbours_change_no_bit(subjects: Subjects, architecture: str):
    subject = subjects(architecture)
    jobs = [job(120, 3, 21, temperature=1.0), job(1, 4, 9, temperature=0.7), job(197, 5, 13), job(62, 6, 7)]
    for seed, budget in enumerate((6, 15)):
        drafter = RandomTrees(subject.plain, jobs, seed, fill=seed == 0)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, budget)) == []


@pytest.mark.parametrize("architecture", ["llama-odd", "gpt2"])
def test_batches_and_parameters_change_no_bit(subjects: Subjects, architecture: str):
    subject = subjects(architecture)
    assert subject.plain.differences(JOBS, decode(subject.target, JOBS)) == []
    for seed in range(3):
        jobs = JOBS[seed::3]
        drafter = RandomTrees(subject.plain, jobs, seed, ("mixed", "always", "never")[seed], fill=seed == 1)
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter, 11 + 14 * seed)) == []


@every_model
def test_a_prompt_leaves_the_bits_that_decoding_leaves_by_any_number_of_threads(subjects: Subjects, architecture: str):
    tokens = drawn(140, 5)
    expected = stored(subjects(architecture), tokens, 139)
    before = torch.get_num_threads()
    try:
        for threads, split in ((1, 130), (2, 64), (3, 101), (2, 7)):
            torch.set_num_threads(threads)
            assert np.array_equal(stored(subjects(architecture), tokens, split), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("temperature", "budget"), [(0.0, 0), (1.0, 5)])
def test_whoever_is_preempted_has_the_bits_of_plain_decoding(temperature: float, budget: int):
    subject = QuantizedSubject("llama-odd", cache_tokens=960)
    assert subject.pool.reserve(960 - 64 * PAGES) is not None
    jobs = jobs_of(5, 6, temperature)
    played = Played(subject, jobs, 5, budget)
    assert played.differences(subject, jobs) == []
    assert played.num_preemptions > 0


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def logits_of(subject: QuantizedSubject, text: list[int], start: int) -> np.ndarray:
    """Of the tokens from `start` on, as a chain behind those before."""
    sequence = subject.pool.reserve(len(text) + 64)
    subject.decoder.prefill(sequence, text[:start])
    count = len(text) - start
    rows = subject.decoder.forward([TreeWork(sequence, text[start:], range(-1, count - 1))])
    subject.pool.release(sequence)
    return rows


@every_model
def test_logits_are_those_of_transformers_on_the_values_of_the_blocks(subjects: Subjects, architecture: str):
    """Where the inputs of its products are rounded as ours, within 1 %: last bits decide some roundings otherwise.

    And from those of inputs that nothing rounds no further than these are. That is with keys and values in float32;
    in bfloat16, as they are kept, at most twice as far.
    """
    subject, text = subjects(architecture), drawn(190, 9)  # beyond the windows of 37, across the end of a tile
    with patch("paceline.model.proving.cache_dtype", lambda model: torch.float32):
        wide = logits_of(QuantizedSubject(architecture), text, 130)
    alike, plain = (subject.own_logits(text, are_rounded)[130:] for are_rounded in (True, False))
    assert distance(wide, alike) < 0.01
    assert distance(wide, plain) < 1.1 * distance(alike, plain)
    assert distance(logits_of(subject, text, 130), plain) < 2 * distance(alike, plain)


def corrupted(change: Callable[[torch.Tensor], None]) -> Callable[..., None]:
    """`apply`, after which the kernels compute with other bytes in the first linear than the reference did."""

    def apply(model: nn.Module, path: object) -> None:
        right(model, path)
        packed = next(m.packed for name, m in model.named_modules() if name.endswith("q_proj"))
        change(packed.data.view(-1, 1088))  # a group of 32 columns: codes, then scales

    from paceline.model.numerics import apply as right

    return apply


def swap_scales(groups: torch.Tensor) -> None:
    """Neighbouring groups of Q8_0 get each other's."""
    scales = groups[:, 1024:].clone()
    groups[:, 1024:] = scales[torch.arange(len(scales)) ^ 1]


def share_scales(groups: torch.Tensor) -> None:
    """Two columns have the first one's."""
    scales = groups[:, 1024:].view(len(groups), -1, 2, 2)
    scales[:, :, 1] = scales[:, :, 0]


def flip_signs(groups: torch.Tensor) -> None:
    groups[:, :1024] ^= 0x80


@pytest.mark.parametrize("change", [swap_scales, share_scales, flip_signs])
def test_wrong_blocks_in_one_linear_are_refused_at_load(change: Callable[[torch.Tensor], None]):
    checkpoint = QuantizedSubject("llama").checkpoint
    with patch("paceline.model.proving.apply", corrupted(change)), pytest.raises(ModelError, match="differ from"):
        load_target(checkpoint, cache_tokens=1024)


def with_other_scales(checkpoint: Rounded, rows: slice) -> Rounded:
    """The same codes, and other scales of Q8_0 in some rows of each matrix."""

    class Other(Rounded):
        def weights(self) -> Iterator[StoredWeight]:
            for one in super().weights():
                if isinstance(one.value, BlockRows):
                    data = one.value.data.clone()
                    data.view(len(data), -1, 34)[rows, :, 0] ^= 8
                    one = replace(one, value=replace(one.value, data=data))
                yield one

    return Other(checkpoint.model, checkpoint.kinds)


def test_a_proof_is_trusted_for_the_same_blocks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subjects: Subjects
):
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    checkpoint = subjects("llama").checkpoint
    assert was_proved(load(checkpoint)[1])
    assert not was_proved(load(checkpoint)[1])
    for rows in (slice(0, None), slice(5, 6)):  # a single row may be in no sample: the logits tell
        assert was_proved(load(with_other_scales(checkpoint, rows))[1])
    model, other = build(checkpoint), build(with_other_scales(checkpoint, slice(0, None)))
    assert proof_file(model) != proof_file(other)


def test_without_native_kernels_it_is_said(monkeypatch: pytest.MonkeyPatch, subjects: Subjects):
    checkpoint = subjects("llama").checkpoint
    monkeypatch.setenv(VARIABLE, "0")
    library.cache_clear()
    try:
        with pytest.raises(ModelError, match="quantised weights need the native kernels: install"):
            load_target(checkpoint)
    finally:
        library.cache_clear()
