"""The page pool: what is kept is moved whole, what is freed tells nothing, what waits gets its turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paceline
from exactness.conftest import Subjects
from exactness.decoding import RandomTrees, decode
from exactness.subjects import Subject, job
from paceline.model.pool import PAGE_SIZE, CachedSequence, LayerShape, PagePool, head_index

CPU = torch.device("cpu")
SHAPES = [LayerShape(2, 6, 4), LayerShape(1, 3, 5)]


def contents(pool: PagePool, sequence: CachedSequence, count: int) -> list[torch.Tensor]:
    """Keys and values of a sequence's first positions, layer by layer."""
    slots = sequence.slots(np.arange(count))
    indices = [head_index(slots, layer.shape.num_kv_heads, CPU) for layer in pool.layers]
    return [part for layer, index in zip(pool.layers, indices, strict=True) for part in layer.read(index)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(length=st.integers(0, 200), path=st.sets(st.integers(1, PAGE_SIZE - 1)))
def test_a_kept_path_stands_in_order_and_nothing_else_moves(length: int, path: set[int]):
    pool = PagePool(SHAPES, 12, torch.float32, CPU)
    neighbour = pool.reserve(100)
    sequence = pool.reserve(length + PAGE_SIZE)
    assert neighbour is not None
    assert sequence is not None
    for layer in pool.layers:
        layer.keys.copy_(torch.arange(layer.keys.numel()).view_as(layer.keys))
        layer.values.copy_(-torch.arange(layer.values.numel()).view_as(layer.values))
    sequence.length = length
    kept = np.array([0, *sorted(path)])
    slots = np.append(np.arange(length), length + kept)
    before = [t.view(-1, h, t.shape[-1])[slots] for t, h in heads(contents(pool, sequence, length + PAGE_SIZE))]
    beside = contents(pool, neighbour, 100)
    pool.keep_path(sequence, kept)
    assert sequence.length == length + len(kept)
    after = [t.view(-1, h, t.shape[-1]) for t, h in heads(contents(pool, sequence, sequence.length))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(beside, contents(pool, neighbour, 100), strict=True))


def heads(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, int]]:
    return list(zip(tensors, (2, 2, 1, 1), strict=True))


def poison(pool: PagePool) -> int:
    """Fill every free page with NaN; how many there were."""
    taken = [pool.reserve(PAGE_SIZE) for _ in range(pool.num_free_tokens // PAGE_SIZE)]
    for page in taken:
        for layer in pool.layers:
            layer.keys[page.pages] = torch.nan
            layer.values[page.pages] = torch.nan
    for page in reversed(taken):
        pool.release(page)
    return len(taken)


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("llama", torch.float32), ("gemma2", torch.float32), ("mistral", torch.bfloat16)],
)
def test_what_earlier_requests_left_in_freed_pages_changes_no_bit(subjects: Subjects, architecture, dtype):
    """NaN stands for it: any use of a freed slot would show. A prompt of one token leaves its page unwritten."""
    subject = subjects(architecture, dtype)
    jobs = [job(1, 1, 9), job(260, 2, 9, temperature=1.0), job(1, 3, 70), job(130, 4, 5), job(2, 5, 9)]
    for seed in range(2):
        drafter = RandomTrees(subject.plain, jobs, seed, fill=True)
        assert poison(subject.pool) == subject.pool.num_pages - 1
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter)) == []


def test_pages_reused_while_others_run_change_no_bit(subjects: Subjects):
    """Requests end at different times, and those that wait take over their pages, poisoned."""
    subject = subjects("llama")
    jobs = [job(1 + 37 * i % 300, i, 3 + 7 * i % 40, temperature=i % 2) for i in range(24)]
    drafter = RandomTrees(subject.plain, jobs, fill=True)
    for one in jobs:
        assert subject.plain[one].tokens
    free: list[int] = []

    def watch(engine):
        free.append(poison(subject.pool))

    traces = decode(subject.target, jobs, drafter, 3, watch)
    assert subject.plain.differences(jobs, traces) == []
    assert min(free) < 10
    assert free[-1] == subject.pool.num_pages - 1


@pytest.fixture(scope="module")
def small() -> Subject:
    """A model whose pool holds 15 pages."""
    return Subject("llama", cache_tokens=960, max_position_embeddings=2048)


def test_requests_that_do_not_fit_wait_for_their_turn(small: Subject):
    jobs = [job(200, i, 20 + i) for i in range(7)]  # 5 pages each, so 3 at a time
    running: list[int] = []
    drafter = RandomTrees(small.plain, jobs, fill=True)
    traces = decode(small.target, jobs, drafter, 7, lambda engine: running.append(len(engine.scheduler.running)))
    assert small.plain.differences(jobs, traces) == []
    assert max(running) == 3


def test_a_request_that_can_never_fit_is_refused_in_words(small: Subject):
    assert small.pool.num_free_tokens == 960
    with pytest.raises(paceline.RequestError, match="exceed the cache, which holds 896"):
        small.llm.generate([1] * 500, max_tokens=397)
    assert small.pool.num_free_tokens == 960
    assert len(small.llm.generate([1] * 500, max_tokens=396, ignore_eos=True).token_ids) == 396


def test_a_refused_request_leaves_its_neighbours_alone(small: Subject):
    with pytest.raises(paceline.RequestError, match="exceed the cache"):
        small.llm.generate([[1, 2, 3], [1] * 600], max_tokens=300)
    assert small.pool.num_free_tokens == 960
    assert small.llm.generate([1, 2, 3], max_tokens=4, drafters="none").token_ids


def test_closing_a_stream_early_frees_its_pages(small: Subject):
    stream = small.llm.stream([1, 2, 3], max_tokens=200)
    first = [next(stream).id for _ in range(3)]
    assert small.pool.num_free_tokens < 960
    stream.close()
    assert small.pool.num_free_tokens == 960
    assert [token.id for token in stream.output.tokens] == first
    assert stream.output.finish_reason == "abort"


def test_every_page_is_free_after_an_interruption(small: Subject):
    def interrupt(engine):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(small.target, [job(70, 1), job(3, 2)], on_step=interrupt)
    assert small.pool.num_free_tokens == 960
