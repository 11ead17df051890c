"""The caller's prediction: followed while it holds, and found again after edits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.drafters.prediction import PredictionDrafter
from paceline.engine.request import DraftLimits, Environment, Hints
from paceline.engine.tree import DraftTree

WORDS = list(range(100, 160))


def asked(prediction: list[int], output: list[int], budget: int = 4, prompt: tuple[int, ...] = (1, 2)) -> DraftTree:
    """What a drafter proposes after the whole output, having been asked at every token."""
    request = SimpleNamespace(
        id=0, tokens=list(prompt), num_prompt_tokens=len(prompt), hints=Hints(prediction=tuple(prediction))
    )
    drafter = PredictionDrafter()
    assert drafter.start(request)
    tree = drafter.propose_one(request, DraftLimits(budget))
    for token in output:
        request.tokens.append(token)
        tree = drafter.propose_one(request, DraftLimits(budget))
    drafter.finish(request)
    assert not drafter._cursors
    return tree


def asked_once(prediction: list[int], output: list[int], budget: int = 4) -> DraftTree:
    return asked(prediction, [], budget, prompt=()) if not output else _late(prediction, output, budget)


def _late(prediction: list[int], output: list[int], budget: int) -> DraftTree:
    request = SimpleNamespace(id=0, tokens=[1, *output], num_prompt_tokens=1, hints=Hints(tuple(prediction)))
    return PredictionDrafter().propose_one(request, DraftLimits(budget))


def paths(tree: DraftTree) -> list[list[int]]:
    found: list[list[int]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        found.append([*(found[parent] if parent >= 0 else []), token])
    return found


def test_a_request_without_a_prediction_is_not_taken_up() -> None:
    assert not PredictionDrafter().start(SimpleNamespace(id=0, hints=Hints()))


def test_the_output_is_the_prediction_from_its_first_token_to_its_last() -> None:
    assert asked(WORDS, []).tokens == tuple(WORDS[:4])
    assert asked(WORDS, WORDS[:20]).tokens == tuple(WORDS[20:24])
    assert asked(WORDS, WORDS[:-1]).tokens == (WORDS[-1],)
    assert len(asked(WORDS, WORDS)) == 0


EDITS = {
    "replaced": [*WORDS[:10], 7, 8, *WORDS[12:16]],
    "put in": [*WORDS[:10], 7, 8, 9, *WORDS[10:16]],
    "left out": [*WORDS[:10], *WORDS[14:16]],
    "put before": [7, 8, 9, *WORDS[:16]],
    "moved back": [*WORDS[:30], 7, *WORDS[14:16]],
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("ask", [asked, asked_once])
def test_an_edit_is_followed_as_soon_as_two_tokens_agree_again(edit: str, ask) -> None:
    assert ask(WORDS, EDITS[edit]).tokens == tuple(WORDS[16:20])


def test_right_after_a_mismatch_the_guesses_are_one_token_left_out_replaced_or_put_in() -> None:
    tree = asked(WORDS, [*WORDS[:10], WORDS[11]], budget=90)
    assert [path[0] for path in paths(tree) if len(path) == 1] == [WORDS[12], WORDS[11], WORDS[10]]
    tree = asked(WORDS, [*WORDS[:10], 7], budget=9)
    assert {path[0] for path in paths(tree) if len(path) == 1} == {WORDS[11], WORDS[10]}
    assert len(asked(WORDS, [*WORDS[:10], 7, 8, 9])) == 0  # and no guesses later on


def test_of_equal_agreements_the_place_after_the_mismatch_and_near_to_it_comes_first() -> None:
    prediction = [50, 51, 60, *WORDS[:10], 50, 51, 61, *WORDS[10:20], 50, 51, 62]
    tree = asked(prediction, [50, 51, 60, *WORDS[:8], 7, 7, 50, 51], budget=90)
    assert [path[0] for path in paths(tree) if len(path) == 1] == [61, 62, 60]
    assert paths(tree).count([61]) == 1


def test_a_longer_agreement_comes_before_a_nearer_one() -> None:
    prediction = [1, 2, 3, 30, 40, 2, 3, 31]
    assert asked(prediction, [1, 9, 8, 1, 2, 3], budget=1).tokens == (30,)


def test_what_the_model_cannot_say_and_what_follows_it_is_not_proposed() -> None:
    drafter = PredictionDrafter()
    drafter.attach(Environment(None, 50, "cpu"))
    request = SimpleNamespace(id=0, tokens=[1], num_prompt_tokens=1, hints=Hints((3, 4, 50, 5)))
    assert drafter.propose_one(request, DraftLimits(9)).tokens == (3, 4)


texts = st.lists(st.integers(0, 3), max_size=40)


@given(texts.filter(len), texts, texts, st.integers(1, 20))
def test_trees_are_well_formed_and_only_say_what_stands_in_the_prediction(
    prediction: list[int], output: list[int], more: list[int], budget: int
) -> None:
    request = SimpleNamespace(id=0, tokens=[9, *output], num_prompt_tokens=1, hints=Hints(tuple(prediction)))
    drafter = PredictionDrafter()
    for token in [None, *more]:
        request.tokens += [] if token is None else [token]
        tree = drafter.propose_one(request, DraftLimits(budget))
        assert len(tree) <= budget
        assert len(set(zip(tree.parents, tree.tokens, strict=True))) == len(tree)
        assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
        assert all(0 <= score <= 1 for score in tree.scores)
        assert all(0 <= bucket < 256 for bucket in tree.buckets)
        assert len(tree.buckets) == len(tree.scores) == len(tree.sources) == len(tree)
        for above in {-1, *tree.parents}:
            assert sum(s for s, parent in zip(tree.scores, tree.parents, strict=True) if parent == above) <= 1 + 1e-6
        for path in paths(tree):
            assert any(prediction[i : i + len(path)] == path for i in range(len(prediction)))


@given(texts.filter(len), st.data())
def test_a_prediction_that_holds_is_followed_to_its_end(prediction: list[int], data) -> None:
    said = data.draw(st.integers(0, len(prediction) - 1))
    assert asked(prediction, prediction[:said]).tokens == tuple(prediction[said : said + 4])
