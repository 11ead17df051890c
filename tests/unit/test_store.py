"""The store of texts against a search by hand, its bounds, and the trees it drafts."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.drafters._store import Texts, TextStore, draft, owner_key
from paceline.drafters._store.drafting import NUM_SIGNS
from paceline.drafters._store.ring import BYTES_PER_TOKEN, GRANULE, MAX_HITS
from paceline.engine.request import DraftLimits

SMALL = 40 * GRANULE * 25  # bytes; forty granules
texts = st.lists(st.lists(st.integers(0, 5), max_size=30), max_size=6)
contexts = st.lists(st.integers(0, 5), max_size=12)
Owned = list[tuple[int, list[int]]]
owned = st.lists(st.tuples(st.integers(1, 2), st.lists(st.integers(0, 5), max_size=30)), max_size=8)


def store_of(pairs: Owned, num_bytes: int = SMALL) -> TextStore:
    store = TextStore(num_bytes)
    for owner, text in pairs:
        store.add(text, owner)
    return store


def followers(pairs: Owned, owner: int, suffix: list[int]) -> Counter[int]:
    """Every token that followed `suffix` in the owner's texts, with how often."""
    size = len(suffix)
    mine = [text for of, text in pairs if of == owner]
    return Counter(t[i + size] for t in mine for i in range(len(t) - size) if t[i : i + size] == suffix)


@given(owned, contexts, st.integers(2, 5))
def test_hits_are_places_of_the_owners_own_where_the_context_stood(pairs: Owned, context, least: int) -> None:
    store = store_of(pairs)
    for place, agreement in store.find(context, 1, least):
        assert agreement >= 2
        suffix = context[-max(agreement, least) :]
        assert [store.token(i) for i in range(place - len(suffix), place)] == suffix
        assert followers(pairs, 1, suffix)[store.token(place)]


@given(owned, contexts)
def test_all_places_of_the_longest_hashed_suffix_are_found_and_shares_are_frequencies(pairs: Owned, context) -> None:
    known = [(n, followers(pairs, 1, context[-n:])) for n in (8, 4, 2) if len(context) >= n]
    expected = next(((n, found) for n, found in known if found), None)
    hits = store_of(pairs).find(context, 1)
    if expected is None:
        assert not hits
    elif expected[1].total() < MAX_HITS // 2:
        store = store_of(pairs)
        assert Counter(store.token(place) for place, size in hits if size >= expected[0]) == expected[1]


@given(owned, contexts.filter(lambda c: len(c) > 1), st.integers(1, 20))
def test_trees_are_well_formed_and_say_only_what_followed(pairs: Owned, context, budget: int) -> None:
    store = store_of(pairs)
    tree = draft(store, store.find(context, 1), DraftLimits(budget), 0.0, "me")
    assert len(tree) <= budget
    assert set(tree.sources) <= {"me"}
    assert all(0 <= bucket < NUM_SIGNS for bucket in tree.buckets)
    assert len(set(zip(tree.parents, tree.tokens, strict=True))) == len(tree.tokens) == len(tree.buckets)
    for above in {-1, *tree.parents}:
        assert sum(s for s, parent in zip(tree.scores, tree.parents, strict=True) if parent == above) <= 1 + 1e-6
    paths: list[list[int]] = []
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        assert -1 <= parent < node
        assert 0 <= tree.scores[node] <= 1
        paths.append([*(paths[parent] if parent >= 0 else []), token])
        assert followers(pairs, 1, context[-2:] + paths[-1][:-1])[token]


def test_the_more_frequent_continuation_is_likelier_and_an_unlikely_one_is_left_out() -> None:
    store = store_of([(1, [7, 8, 1]), (1, [7, 8, 2]), (1, [7, 8, 2])])
    tree = draft(store, store.find([7, 8], 1), DraftLimits(9), 0.0, "me")
    assert tree.tokens == (2, 1)
    assert tree.scores[0] == pytest.approx(2 * tree.scores[1])
    assert draft(store, store.find([7, 8], 1), DraftLimits(9), tree.scores[1] + 0.01, "me").tokens == (2,)


def test_a_long_agreement_decides_where_it_says_anything() -> None:
    long = list(range(20, 40))
    store = store_of([(1, [*long, 1]), *[(1, [38, 39, 2])] * 5])
    assert draft(store, store.find(long, 1), DraftLimits(1), 0.0, "me").tokens == (1,)


def test_nothing_of_one_owner_is_found_for_another_though_the_texts_are_alike() -> None:
    store = store_of([(1, [1, 2, 3, 4]), (2, [1, 2, 3, 5])])
    assert draft(store, store.find([1, 2, 3], 1), DraftLimits(9), 0.0, "me").tokens == (4,)
    assert draft(store, store.find([1, 2, 3], 2), DraftLimits(9), 0.0, "me").tokens == (5,)
    assert not store.find([1, 2, 3], 3)


def test_a_text_longer_than_a_piece_and_one_too_short_to_draft_from() -> None:
    long = np.random.default_rng(0).integers(0, 10**6, 9000)
    store = store_of([(1, [5, 6]), (1, [])], 10**6)
    assert len(store) == 0
    store.add(long, 1)
    assert len(store) == 9000
    assert store.token(store.find(long[7000:7005].tolist(), 1)[0][0]) == long[7005]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(1, 9))
def test_whatever_is_added_the_cap_holds_and_the_newest_text_is_kept(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    store = TextStore(9 * GRANULE * 25)
    for size in sizes:
        store.add(random.integers(0, 9, size), int(random.integers(1, 4)))
        store.add([*range(100, 110)], 5)
        assert store.num_bytes <= 9 * GRANULE * 25
        assert len(store) <= store.capacity
        hits = store.find([103, 104, 105], 5)
        assert store.token(hits[0][0]) == 106
        store.credit(hits if seed % 2 else [], 106)


def test_a_million_tokens_stay_within_the_cap_and_adding_is_quick() -> None:
    random, store = np.random.default_rng(0), TextStore(4 << 20)
    started = time.perf_counter()
    for _ in range(500):
        store.add(random.integers(0, 50_000, 2000), 1)
    assert time.perf_counter() - started < 500 * 0.010
    assert store.num_bytes <= 4 << 20
    assert 0.9 * store.capacity < len(store) <= store.capacity
    assert store.capacity * BYTES_PER_TOKEN <= 4 << 20


@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_in_a_full_store_everything_is_still_found(size: int) -> None:
    """Hashes collide all the time then: no chain may end at a place of another order or owner."""
    random, store = np.random.default_rng(1), TextStore(3000 * 25)
    texts = [random.permutation(10_000)[:700] for _ in range(3)]
    for owner, text in enumerate(texts, 1):
        store.add(text, owner)
    for owner, text in enumerate(texts, 1):
        for place in range(size, 700, 7):
            found = store.find(text[place - size : place].tolist(), owner)
            assert text[place] in [store.token(hit) for hit, _ in found]


def test_what_never_drafted_anything_goes_first() -> None:
    random, store = np.random.default_rng(0), TextStore(20 * GRANULE * 25)
    useful, useless = [*range(1000, 1200)], [*range(2000, 2200)]
    store.add(useful, 1)
    store.add(useless, 1)
    store.credit(store.find(useful[:5], 1), useful[5])
    store.credit(store.find(useful[150:155], 1), useful[155])
    store.credit(store.find(useless[:5], 1), 77)  # proposed, but wrong
    for _ in range(7):
        store.add(random.integers(0, 900, 400), 1)
    assert not store.find(useless[:5], 1)
    assert store.token(store.find(useful[126:130], 1)[0][0]) == useful[130]  # kept in one piece
    for _ in range(20):
        store.add(random.integers(0, 900, 400), 1)
    assert not store.find(useful[:5], 1), "but not for ever"


@given(owned)
def test_what_is_taken_out_is_what_was_added_in_order(pairs: Owned) -> None:
    found = [(owner, text.tolist()) for text, owner in store_of(pairs).texts()]
    assert found == [(owner, text) for owner, text in pairs if len(text) > 2]
    arrays = [(np.array(text, np.int32), owner) for owner, text in pairs]
    assert [(of, t.tolist()) for t, of in Texts.of(arrays)] == pairs


def test_an_owner_is_named_by_a_hash_that_depends_on_the_salt() -> None:
    assert owner_key("ann", b"1" * 16) == owner_key("ann", b"1" * 16) != 0
    assert len({owner_key(name, salt) for name in ("ann", "bob", "") for salt in (b"1" * 16, b"2" * 16)}) == 6
