"""The prefix cache and the pool around it: what is found is what was written, and no page has two writers."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.model.pool import PAGE_SIZE, CachedSequence, LayerShape, PagePool
from paceline.model.prefix import PrefixCache

TENANTS = ("", "a", "b")


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(5), k=length)


def pool_of(num_pages: int) -> PagePool:
    return PagePool([LayerShape(1, 2, 2)], num_pages, torch.float32, torch.device("cpu"))


def test_the_longest_known_beginning_is_found() -> None:
    cache = PrefixCache()
    tokens = text(1, 3 * PAGE_SIZE + 7)
    cache.offer("a", tokens, [4, 9, 2, 7])
    assert cache.find("a", tokens) == [4, 9, 2]  # the last page is not full
    assert cache.find("a", tokens[: 2 * PAGE_SIZE]) == [4, 9]
    assert cache.find("a", tokens[: 2 * PAGE_SIZE - 1]) == [4]
    assert cache.find("a", [*tokens[: 2 * PAGE_SIZE - 1], 99, *tokens[2 * PAGE_SIZE :]]) == [4]
    assert cache.find("a", [99, *tokens[1:]]) == []
    assert cache.find("a", tokens[PAGE_SIZE:]) == []  # the same tokens at another place
    assert 7 not in cache
    assert len(cache) == 3


@pytest.mark.parametrize("other", ["", "b", "aa"])
def test_nobody_finds_what_another_tenant_has_read(other: str) -> None:
    cache = PrefixCache()
    cache.offer("a", text(1, 200), [1, 2, 3])
    assert cache.find(other, text(1, 200)) == []


def test_of_two_pages_with_the_same_tokens_the_first_stays() -> None:
    cache = PrefixCache()
    both = text(1, PAGE_SIZE)
    cache.offer("", both + text(2, PAGE_SIZE), [1, 2])
    cache.offer("", both + text(3, PAGE_SIZE), [5, 6])
    assert cache.find("", both + text(3, PAGE_SIZE)) == [1, 6]
    assert 5 not in cache


def test_a_page_offered_again_leaves_nothing_behind() -> None:
    """Its own sequence still runs when the page before it, another sequence's with the same tokens, is given up."""
    cache = PrefixCache()
    both, own = text(1, PAGE_SIZE), text(2, PAGE_SIZE)
    cache.offer("", both, [1])
    cache.offer("", both + own, [5, 6])
    cache.forget(1)
    cache.offer("", both + own, [5, 6])
    assert cache.find("", both + own) == [5, 6]
    assert len(cache._pages) == len(cache._keys) == 2
    for page in (5, 6):
        cache.forget(page)
    assert not cache._pages


def test_a_page_that_parts_or_is_not_full_is_known_as_far_as_it_agrees() -> None:
    cache = PrefixCache()
    full, rest = text(1, PAGE_SIZE), text(2, 23)
    cache.offer("a", full, [4])
    behind = cache.enter("a", tuple(full), 4)[1]
    assert cache.enter(behind, tuple(rest), 9) == (9, behind + 1)
    assert cache.begun(behind, [*rest, 1, 2]) == (9, 23)
    assert cache.begun(behind, rest[:11]) == (9, 11)
    assert cache.begun(behind, [*rest[:9], 99, *rest[10:]]) == (9, 9)
    assert cache.begun(behind, [*rest[:7], 99, *rest[8:]]) == (0, 0)  # too few
    assert cache.begun("a", [*full[:40], 99]) == (4, 40)
    for before, tokens in ((behind, [99, *rest]), ("b", full), ("a", []), (behind + 1, rest)):
        assert cache.begun(before, tokens) == (0, 0)
    assert cache.find("a", full + rest) == [4]
    cache.forget(9)
    assert cache.begun(behind, rest) == (0, 0)
    cache.forget_all()
    assert cache.begun("a", full) == (0, 0)
    assert not cache._behind


def test_of_pages_that_begin_alike_the_one_that_agrees_longest_is_found_among_the_newest() -> None:
    cache = PrefixCache()
    for page in range(1, 40):
        cache.enter("", tuple([7] * page), page)
    assert cache.begun("", [7] * 30 + [8] * 30)[1] == 30
    assert cache.begun("", [7] * 60) == (39, 39)
    for page in range(40, 60):
        cache.enter("", (*[7] * 9, page), page)
    assert cache.begun("", [7] * 60)[1] == 9  # the long ones are too far back


def test_the_first_positions_of_a_page_are_copied() -> None:
    pool = pool_of(6)
    first, second = pool.reserve(100), pool.reserve(100)
    assert first is not None
    assert second is not None
    for layer in pool.layers:
        layer.keys[:] = torch.arange(layer.keys.numel()).view(layer.keys.shape)
    second.length = PAGE_SIZE
    before = pool.layers[0].keys.clone()
    pool.copy_begun(second, int(first.pages[1]), 17)
    keys, page = pool.layers[0].keys, int(second.pages[1])
    assert second.length == PAGE_SIZE + 17
    assert torch.equal(keys[page, :, :17], before[int(first.pages[1]), :, :17])
    assert torch.equal(keys[page, :, 17:], before[page, :, 17:])


def test_what_stood_behind_a_forgotten_page_is_not_found_behind_its_successor() -> None:
    cache = PrefixCache()
    tokens = text(1, 2 * PAGE_SIZE)
    cache.offer("", tokens, [1, 2])
    cache.forget(1)
    cache.forget(1)  # once more does nothing
    assert cache.find("", tokens) == []
    cache.offer("", text(2, PAGE_SIZE), [1])  # the page's number is used again
    assert cache.find("", text(2, PAGE_SIZE) + tokens[PAGE_SIZE:]) == [1]


def test_what_is_kept_counts_as_free_and_is_given_up_last_and_oldest_first() -> None:
    pool = pool_of(8)
    old, new = text(1, 2 * PAGE_SIZE), text(2, 2 * PAGE_SIZE)
    for tokens in (old, new):
        sequence = pool.reserve(len(tokens))
        assert sequence is not None
        pool.prefixes.offer("", tokens, sequence.pages.tolist())
        pool.release(sequence)
    assert pool.num_free_tokens == 7 * PAGE_SIZE
    taken = pool.reserve(4 * PAGE_SIZE)  # three were never used, so one of the kept must go: the end of the oldest
    assert taken is not None
    assert [len(pool.prefixes.find("", tokens)) for tokens in (old, new)] == [1, 2]
    pool.release(taken)
    found = pool.prefixes.find("", new)
    again = pool.reserve(3 * PAGE_SIZE, found)
    assert again is not None
    assert again.pages.tolist()[:2] == found
    assert again.length == 2 * PAGE_SIZE


def test_pages_that_are_shared_are_not_counted_as_room() -> None:
    pool = pool_of(5)
    tokens = text(1, 2 * PAGE_SIZE)
    first = pool.reserve(len(tokens))
    assert first is not None
    pool.prefixes.offer("", tokens, first.pages.tolist())
    pool.release(first)
    shared = pool.prefixes.find("", tokens)
    assert pool.reserve(5 * PAGE_SIZE, shared) is None
    assert pool.num_free_tokens == 4 * PAGE_SIZE
    whole = pool.reserve(4 * PAGE_SIZE, shared)
    assert whole is not None
    assert pool.num_free_tokens == 0
    assert len(set(whole.pages.tolist())) == 4


class Model:
    """A pool, and beside it what each page was last filled with."""

    def __init__(self) -> None:
        self.pool = pool_of(12)
        self.holds: dict[int, tuple[str, tuple[int, ...]]] = {}  # page -> (tenant, all tokens up to its end)
        self.running: list[tuple[str, list[int], CachedSequence]] = []

    def begin(self, tenant: str, tokens: list[int]) -> None:
        found = self.pool.prefixes.find(tenant, tokens)
        for i, page in enumerate(found):
            assert self.holds[page] == (tenant, tuple(tokens[: (i + 1) * PAGE_SIZE]))
        sequence = self.pool.reserve(len(tokens) + PAGE_SIZE, found)
        if sequence is None:
            return
        own = sequence.pages.tolist()[len(found) :]
        in_use = {page for _, _, other in self.running for page in other.pages.tolist()}
        assert not in_use & set(own)  # what is written is nobody else's
        assert 0 not in own
        for i, page in enumerate(sequence.pages.tolist()):
            self.holds[page] = (tenant, tuple(tokens[: (i + 1) * PAGE_SIZE]))
        self.pool.prefixes.offer(tenant, tokens, sequence.pages.tolist())
        self.running.append((tenant, tokens, sequence))

    def end(self, index: int) -> None:
        if self.running:
            self.pool.release(self.running.pop(index % len(self.running))[2])

    def check(self) -> None:
        in_use = {page for _, _, sequence in self.running for page in sequence.pages.tolist()}
        assert self.pool.num_free_tokens == (11 - len(in_use)) * PAGE_SIZE


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("begin"), st.sampled_from(TENANTS), st.integers(0, 3), st.integers(0, 300)),
            st.tuples(st.just("end"), st.integers(0, 9)),
        ),
        max_size=40,
    )
)
def test_whatever_comes_and_goes_what_is_found_is_what_was_written(events: list[tuple]) -> None:
    """Texts are few, of two halves, so that many begin alike and part later."""
    model = Model()
    for kind, *arguments in events:
        if kind == "begin":
            tenant, which, length = arguments
            tokens = [*text(which // 2, PAGE_SIZE), *text(10 + which, 250)][:length]
            model.begin(tenant, tokens)
        else:
            model.end(*arguments)
        model.check()
