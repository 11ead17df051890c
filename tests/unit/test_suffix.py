"""The text's own end, looked for by hand, and the drafter on top of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from law.support import Kind, prepared
from paceline import LLM
from paceline.drafters.suffix import LONGEST, MANY, MAX_HITS, OwnText, SuffixDrafter
from paceline.engine.request import DraftLimits
from paceline.testing import ScriptedTarget

texts = st.integers(1, 4).flatmap(lambda size: st.lists(st.integers(0, size - 1), min_size=1, max_size=60))


def text_of(tokens: list[int]) -> OwnText:
    text = OwnText()
    text.read(tokens)
    return text


def agreement(tokens: list[int], place: int) -> int:
    """How many tokens before a place are those at the end, counted one by one."""
    size = 0
    while size < min(place, LONGEST) and tokens[place - 1 - size] == tokens[-1 - size]:
        size += 1
    return size


@given(texts, st.integers(2, 5))
def test_the_places_found_are_those_that_agree_the_longest_and_then_the_newest(tokens: list[int], least: int) -> None:
    found = {place: agreement(tokens, place) for place in range(1, len(tokens))}
    wanted = sorted(
        ((place, size) for place, size in found.items() if size >= least), key=lambda hit: (-hit[1], -hit[0])
    )
    assert text_of(tokens).find(least) == wanted[:MAX_HITS]


@given(texts, st.lists(st.integers(1, 9), max_size=20))
def test_a_text_read_in_pieces_is_the_text_read_at_once(tokens: list[int], sizes: list[int]) -> None:
    text = OwnText()
    for end in [*np.cumsum([1, *sizes]).tolist(), len(tokens)]:
        text.read(tokens[text.size : end])
    assert text.find(2) == text_of(tokens).find(2)
    assert [text.token(place) for place in range(len(tokens) + 2)] == [*tokens, -1, -1]


def test_what_a_source_says_is_drafted() -> None:
    """It stands nowhere before in the output."""
    drafter, request = SuffixDrafter(), Kind({}).request(5, 50, prompt=[0, 1, 2])
    request.hints = replace(request.hints, source=(4, 1, 2, 3, 4))
    drafter.start(request)
    assert drafter.propose_one(request, DraftLimits(4)).tokens[:2] == (3, 4)


def test_of_very_many_places_the_longest_agreement_is_still_found() -> None:
    once = [7, 8, 9, 1, 2, 50]
    often = [3, 1, 2] * (3 * MANY)
    tokens = [*once, *often, 7, 8, 9, 1, 2]
    place, size = text_of(tokens).find(2)[0]
    assert (place, size) == (5, 5)


@given(texts, st.integers(2, 3), st.integers(1, 9))
def test_every_drafted_path_followed_a_suffix_in_the_text(text: list[int], least: int, budget: int) -> None:
    prompt = [*text, 0]
    drafter = SuffixDrafter(min_match=least, min_score=0.0)
    request = Kind({}).request(5, 50, prompt=prompt)
    drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(budget))
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
    assert drafter.propose_one(request, DraftLimits(4)).tokens == (4, 5, 6, 7)
    request.tokens += [4, 9]
    assert len(drafter.propose_one(request, DraftLimits(4))) == 0
    request.tokens += [6, 7]
    assert drafter.propose_one(request, DraftLimits(2)).tokens == (8, 2)


def test_a_draft_branches_where_the_history_branched_the_more_frequent_first() -> None:
    drafter = SuffixDrafter(min_score=0.0)
    request = Kind({}).request(50, 50, prompt=[1, 2, 7, 1, 2, 8, 1, 2, 8, 1, 2])
    drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(9))
    children = Counter(
        {
            token: score
            for token, parent, score in zip(tree.tokens, tree.parents, tree.scores, strict=True)
            if parent < 0
        }
    )
    assert [token for token, _ in children.most_common()] == [8, 7]


def test_a_longer_agreement_is_believed_before_a_shorter_one() -> None:
    drafter = SuffixDrafter(min_score=0.0)
    request = Kind({}).request(50, 50, prompt=[6, 5, 3, 1, 9, 5, 3, 2, 4, 5, 3, 2, 6, 5, 3])
    drafter.start(request)
    assert drafter.propose_one(request, DraftLimits(1)).tokens == (1,)


def test_what_a_node_rests_on_is_told_apart() -> None:
    drafter = SuffixDrafter()
    request = Kind({}).request(50, 50, prompt=[30, 31, 32, 33, 1, 2, 3, 4, 5, 40, 30, 31, 32, 33])
    drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(5))
    assert tree.tokens == (1, 2, 3, 4, 5)
    assert tree.buckets[0] == tree.buckets[3] != tree.buckets[4]  # agreement of 4 to 7, and of 8


def test_nothing_is_kept_of_a_finished_request_and_another_is_not_touched() -> None:
    drafter = SuffixDrafter()
    first, second = (Kind({}).request(50, 50, prompt=prompt) for prompt in ([1, 2, 3, 1, 2], [4, 5, 6, 4, 5]))
    drafter.start(first)
    drafter.start(second)
    trees = drafter.propose([first, second], [DraftLimits(1)] * 2)
    assert [tree.tokens for tree in trees] == [(3,), (6,)]
    drafter.finish(first)
    assert drafter.propose_one(second, DraftLimits(1)).tokens == (6,)
    drafter.finish(second)
    drafter.finish(second)  # once more does nothing
    assert not drafter._texts


def test_a_loop_is_decoded_in_few_steps() -> None:
    target = ScriptedTarget(lambda history: [float((history[-1] + 1) % 11 == v) for v in range(11)], 11)
    stats = LLM.from_target(target, None, drafters="suffix").generate([0], max_tokens=99).stats
    assert stats.num_steps < 99 / 3
