"""The native kernels: a row's bits are the same at every row count and thread count, prefilled or decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exactness.decoding import PlainRuns, RandomTrees, decode
from exactness.models import ARCHITECTURES
from exactness.subjects import Subject, job
from paceline.model.decoder import Decoder
from paceline.model.forward import ROW_COUNTS, ModuleForward, RecordedForward
from paceline.model.pool import PagePool
from paceline.model.rows import TreeWork
from paceline.native.frame import Frame
from paceline.native.layout import Draft
from paceline.native.library import library

pytestmark = pytest.mark.skipif(
    library() is None or not library().is_preferred, reason="no native kernels, or not in use"
)
RECORDED = sorted(ARCHITECTURES)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def llama(request: pytest.FixtureRequest) -> Subject:
    return Subject("llama", request.param)


def stored(subject: Subject, tokens: list[int], split: int) -> np.ndarray:
    """Logits of the last token after `split` tokens were prefilled and the others decoded, three at a time."""
    decoder = subject.decoder
    sequence = decoder.pool.reserve(len(tokens) + 64)
    decoder.prefill(sequence, tokens[:split])
    rows = np.zeros((0, 0), np.float32)
    for start in range(split, len(tokens), 3):
        part = tokens[start : start + 3]
        rows = decoder.forward([TreeWork(sequence, part, list(range(-1, len(part) - 1)))])
        decoder.pool.keep_path(sequence, np.arange(len(part)))
    decoder.pool.release(sequence)
    return rows[-1]


def test_a_prompt_leaves_the_bits_that_decoding_leaves(llama: Subject):
    tokens = [int(t) for t in np.random.default_rng(5).integers(0, 200, 203)]
    last = [stored(llama, tokens, split) for split in (202, 199, 130, 64, 7)]
    assert all(np.array_equal(last[0], other) for other in last[1:])


def test_the_thread_count_changes_no_bit(llama: Subject):
    tokens = [int(t) for t in np.random.default_rng(6).integers(0, 200, 90)]
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(stored(llama, tokens, 71))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_every_row_count_is_exact(llama: Subject):
    assert llama.decoder.row_counts == ROW_COUNTS
    decoder, rng = llama.decoder, np.random.default_rng(7)
    sequence = decoder.pool.reserve(300)
    decoder.prefill(sequence, [int(t) for t in rng.integers(0, 200, 131)])
    tokens, parents = [int(t) for t in rng.integers(0, 200, 64)], [-1, *((i - 1) // 2 for i in range(1, 64))]
    whole = decoder.forward([TreeWork(sequence, tokens, parents)])
    for count in range(1, 64):
        assert np.array_equal(decoder.forward([TreeWork(sequence, tokens[:count], parents[:count])]), whole[:count])
    decoder.pool.release(sequence)


@pytest.mark.parametrize("architecture", RECORDED)
def test_a_whole_forward_is_one_native_call(subjects: Callable[..., Subject], architecture: str):
    forward = subjects(architecture).decoder._forward
    assert isinstance(forward, RecordedForward)
    assert forward.is_exact_by_construction


def test_a_stale_path_is_found_out(monkeypatch: pytest.MonkeyPatch):
    subject = Subject("llama")
    plain, one = PlainRuns(subject.target), job(90, 1, 30)
    assert plain[one]

    def all_before(frame: Frame, trees: Sequence[Draft]) -> NDArray[np.int64]:
        """As many rows as a path is long, but the latest ones."""
        positions, start = right(frame, trees), int(frame._header[3])
        for row, position in enumerate(positions.tolist()):
            place, size = int(frame._table[start + 2 * row + 1]), position + 1 - trees[0].length
            frame._table[place : place + size] = range(row + 1 - size, row + 1)
        return positions

    right = Frame.set_trees
    monkeypatch.setattr(Frame, "set_trees", all_before)
    drafter = RandomTrees(plain, [one], 0, fill=True)
    try:
        differences = plain.differences([one], decode(subject.target, [one], drafter, 12))
    except AssertionError:  # the drafter notices that the text is another
        return
    assert differences


@pytest.mark.parametrize("length", [5, 127, 300, 560])
@pytest.mark.parametrize("architecture", ["llama-odd", "llama-multi-query", "gemma2", "mistral", "gpt2"])
def test_native_attention_is_the_reference_up_to_rounding(
    subjects: Callable[..., Subject], architecture: str, length: int
):
    decoder, rng = subjects(architecture).decoder, np.random.default_rng(length)
    tokens, parents = [int(t) for t in rng.integers(0, 200, length + 40)], [-1, *((i - 1) // 3 for i in range(1, 40))]
    shapes = [layer.shape for layer in decoder.pool.layers]
    pool = PagePool(shapes, 16, decoder.model.dtype, decoder.model.device)
    reference = Decoder(decoder.model, pool, (64,), 640)
    reference._forward = ModuleForward(decoder.model, pool, 639)
    rows = []
    for one in (decoder, reference):
        sequence = one.pool.reserve(length + 64)
        one.prefill(sequence, tokens[:length])
        rows.append(one.forward([TreeWork(sequence, tokens[length:], parents)]))
        one.pool.release(sequence)
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=2e-5 * np.abs(rows[1]).max())
