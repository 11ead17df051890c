"""The suffix automaton against a search by hand, and the drafter on top of it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from law.support import Kind, prepared
from paceline import LLM
from paceline.drafters.suffix import SuffixAutomaton, SuffixDrafter
from paceline.testing import ScriptedTarget

texts = st.integers(1, 4).flatmap(lambda size: st.lists(st.integers(0, size - 1), max_size=40))


def automaton_of(text: list[int], counted: int = SuffixAutomaton.COUNTED) -> SuffixAutomaton:
    automaton = SuffixAutomaton()
    automaton.COUNTED = counted
    for token in text:
        automaton.extend(token)
    return automaton


def earlier_followers(text: list[int], suffix: list[int]) -> Counter[int]:
    """Every token that followed `suffix` in `text`, with how often."""
    size = len(suffix)
    return Counter(text[i + size] for i in range(len(text) - size) if text[i : i + size] == suffix)


def longest_repeated_suffix(text: list[int]) -> list[int]:
    sizes = (size for size in range(len(text) - 1, 0, -1) if earlier_followers(text, text[-size:]))
    return text[-size:] if (size := next(sizes, 0)) else []


@given(texts)
def test_the_match_is_the_longest_suffix_that_occurred_before(text: list[int]) -> None:
    automaton = automaton_of(text)
    assert automaton.length[automaton.match] == len(longest_repeated_suffix(text))


@given(texts)
def test_the_followers_are_the_tokens_that_followed_the_match(text: list[int]) -> None:
    automaton = automaton_of(text)
    if suffix := longest_repeated_suffix(text):
        followers = automaton.followers(automaton.match)
        assert {token for token, _, _ in followers} == earlier_followers(text, suffix).keys()
        assert sum(share for _, _, share in followers) == pytest.approx(1)


@given(texts)
def test_shares_are_true_frequencies_for_every_repeated_suffix_that_is_counted(text: list[int]) -> None:
    automaton = automaton_of(text, counted=10**6)
    state = automaton.match
    while state > 0:
        counts = earlier_followers(text, text[-automaton.length[state] :])
        shares = {token: share for token, _, share in automaton.followers(state)}
        assert shares == pytest.approx({token: n / counts.total() for token, n in counts.items()})
        state = automaton.link[state]


@given(texts)
def test_states_and_transitions_stay_linear_in_the_text(text: list[int]) -> None:
    automaton = automaton_of(text)
    assert len(automaton.length) <= max(2 * len(text), 2)
    assert sum(map(len, automaton.next)) <= 3 * len(text) + 1


@given(texts, st.integers(1, 3), st.integers(1, 9))
def test_every_drafted_path_followed_a_suffix_in_the_text(text: list[int], least: int, budget: int) -> None:
    prompt = [*text, 0]
    drafter = SuffixDrafter(min_match=least, min_score=0.0)
    request = Kind({}).request(5, 50, prompt=prompt)
    drafter.start(request)
    tree = drafter.propose_one(request, budget)
    assert len(tree) <= budget
    assert sum(s for s, parent in zip(tree.scores, tree.parents, strict=True) if parent < 0) < 1  # chances
    paths: list[list[int]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append([*(paths[parent] if parent >= 0 else []), token])
        seen = (prompt[i:] for i in range(len(prompt)))
        assert any(rest[: least + len(paths[-1])] == prompt[-least:] + paths[-1] for rest in seen)


def test_a_text_that_repeats_itself_is_drafted_word_for_word() -> None:
    drafter = prepared("suffix", vocab_size=50)
    request = Kind({}).request(50, 50, prompt=[1, 2, 3, 4, 5, 6, 7, 8, 2, 3])
    drafter.start(request)
    assert drafter.propose_one(request, 4).tokens == (4, 5, 6, 7)
    request.tokens += [4, 9]
    assert len(drafter.propose_one(request, 4)) == 0
    request.tokens += [6, 7]
    assert drafter.propose_one(request, 2).tokens == (8, 2)


def test_a_draft_branches_where_the_history_branched_the_more_frequent_first() -> None:
    drafter = SuffixDrafter(min_score=0.0)
    request = Kind({}).request(50, 50, prompt=[1, 2, 7, 1, 2, 8, 1, 2, 8, 1, 2])
    drafter.start(request)
    tree = drafter.propose_one(request, 9)
    children = [token for token, parent in zip(tree.tokens, tree.parents, strict=True) if parent == -1]
    assert children == [8, 7]


def test_a_longer_suffix_is_believed_before_a_shorter_one() -> None:
    drafter = SuffixDrafter(min_match=1, min_score=0.0)
    request = Kind({}).request(50, 50, prompt=[5, 3, 1, 9, 3, 2, 3, 2, 5, 3])
    drafter.start(request)
    assert drafter.propose_one(request, 1).tokens == (1,)


def test_memory_is_bounded_and_drafting_goes_on_after_the_older_half_is_dropped() -> None:
    drafter = SuffixDrafter(max_tokens=64)
    request = Kind({}).request(1000, 5000, prompt=[999])
    drafter.start(request)
    most = 0
    automata = {}
    for turn in range(40):
        request.tokens += range(5 * turn, 5 * turn + 11)
        drafter.propose_one(request, 3)
        automaton = drafter._texts[request.id].automaton
        assert len(automaton.length) <= 2 * 65
        most = max(most, automaton.num_bytes())
        automata[id(automaton)] = automaton
    assert most < 130 * 1000
    assert len(automata) <= 40 * 11 / 32 + 1  # built again only when another half is full
    request.tokens += [997, 998, 5, 6, 997]
    request.tokens += [998]
    assert drafter.propose_one(request, 2).tokens == (5, 6)


def test_what_is_dropped_is_no_longer_drafted() -> None:
    drafter = SuffixDrafter(max_tokens=8)
    request = Kind({}).request(100, 50, prompt=[50, 51, 52])
    drafter.start(request)
    request.tokens += [*range(9), 50, 51]
    assert len(drafter.propose_one(request, 3)) == 0


def test_nothing_is_kept_of_a_finished_request_and_another_is_not_touched() -> None:
    drafter = SuffixDrafter()
    first, second = (Kind({}).request(50, 50, prompt=prompt) for prompt in ([1, 2, 3, 1, 2], [4, 5, 6, 4, 5]))
    drafter.start(first)
    drafter.start(second)
    [trees] = drafter.propose([first, second], [1, 1])
    assert [tree.tokens for tree in trees] == [(3,), (6,)]
    drafter.finish(first)
    assert drafter.propose_one(second, 1).tokens == (6,)
    drafter.finish(second)
    drafter.finish(second)  # once more does nothing
    assert not drafter._texts


def test_a_loop_is_decoded_in_few_steps() -> None:
    target = ScriptedTarget(lambda history: [float((history[-1] + 1) % 11 == v) for v in range(11)], 11)
    stats = LLM(target, None, drafters="suffix").generate([0], max_tokens=99).stats
    assert stats["num_steps"] < 99 / 3
