"""Guesses from the runners-up of the last logits, and what they are prolonged with."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from law.support import Kind
from paceline.drafters import make
from paceline.drafters.logitspec import LogitSpecDrafter
from paceline.engine.request import DraftLimits, Request, StepOutcome, Token
from paceline.engine.tree import EMPTY, DraftTree

SIZE = 13


def drafter_of(spec: str = "logitspec") -> LogitSpecDrafter:
    drafter = make(spec)
    assert isinstance(drafter, LogitSpecDrafter)
    return drafter


def request_of(drafter: LogitSpecDrafter, *prompt: int) -> Request:
    request = Kind({}).request(SIZE, 500, prompt=prompt)
    assert drafter.start(request)
    return request


def row(*likeliest: int) -> np.ndarray:
    """Logits that rank these tokens first."""
    logits = np.full(SIZE, -9.0, np.float32)
    logits[list(likeliest)] = -np.arange(len(likeliest))
    return logits


def step(drafter: LogitSpecDrafter, request: Request, said: int, *rows: np.ndarray, tree=EMPTY, path=()) -> None:
    ids = [*(tree.tokens[node] for node in path), said]
    request.tokens += ids
    tokens = tuple(Token(i, "", "target", 0.0, 0.0) for i in ids)
    drafter.observe(StepOutcome(request, tree, path, tokens, np.stack(rows)))


@given(st.data())
def test_trees_are_well_formed_and_their_chains_stand_in_the_text(data: st.DataObject) -> None:
    tokens = st.integers(0, SIZE - 1)
    drafter = drafter_of(f"logitspec:guesses={data.draw(st.integers(1, 16))},min_chance=0.000001")
    request = request_of(drafter, *data.draw(st.lists(tokens, min_size=1, max_size=30)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    assert len(drafter.propose_one(request, DraftLimits(9))) == 0
    for _ in range(5):
        step(drafter, request, data.draw(tokens), rng.normal(size=SIZE).astype(np.float32))
        budget = data.draw(st.integers(0, 20))
        tree = drafter.propose_one(request, DraftLimits(budget))
        assert len(tree) <= budget
        assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
        assert len({*zip(tree.parents, tree.tokens, strict=True)}) == len(tree)
        assert all(0 < score <= 1 for score in tree.scores)
        assert all(0 <= bucket < 40 for bucket in tree.buckets)
        sums: Counter[int] = Counter()
        for parent, score in zip(tree.parents, tree.scores, strict=True):
            sums[parent] += score
        assert all(total <= 1 + 1e-6 for total in sums.values())
        assert all(n == 1 for parent, n in Counter(tree.parents).items() if parent >= 0)  # chains
        pairs = {*zip(request.tokens, request.tokens[1:], strict=False)}
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            assert token != request.tokens[-1] if parent < 0 else (tree.tokens[parent], token) in pairs
        request.tokens += data.draw(st.lists(tokens, max_size=2))  # steps in which it was not asked


def test_a_guess_found_after_the_pending_token_comes_first_with_what_followed() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2, 3, 4, 5, 0)
    step(drafter, request, 1, row(1, 7, 2))
    tree = drafter.propose_one(request, DraftLimits(4))
    assert tree.tokens == (2, 3, 4, 5)
    assert tree.parents == (-1, 0, 1, 2)


def test_a_guess_is_prolonged_from_its_last_occurrence_if_the_pair_is_new() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 2, 3, 2, 4, 0)
    step(drafter, request, 1, row(1, 2))
    tree = drafter.propose_one(request, DraftLimits(2))
    assert tree.tokens[:2] == (2, 4)


def test_no_more_tokens_follow_a_guess_than_allowed() -> None:
    drafter = drafter_of("logitspec:length=1,guesses=1")
    request = request_of(drafter, 1, 2, 3, 4, 5, 0)
    step(drafter, request, 1, row(1, 2))
    assert drafter.propose_one(request, DraftLimits(9)).tokens == (2, 3)


def test_the_guesses_are_of_the_last_accepted_nodes_row_and_only_of_the_step_before() -> None:
    drafter = drafter_of("logitspec:guesses=1")
    request = request_of(drafter, 9)
    tree = DraftTree((5, 6), (-1, -1), (0.5, 0.4), ("other",) * 2)
    step(drafter, request, 1, row(6, 2), row(7, 3), row(1, 8), tree=tree, path=(1,))
    assert drafter.propose_one(request, DraftLimits(1)).tokens == (8,)
    request.tokens.append(4)  # a step in which it was not asked
    assert len(drafter.propose_one(request, DraftLimits(9))) == 0


def test_the_text_of_missed_steps_is_caught_up_with() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 9)
    drafter.propose_one(request, DraftLimits(1))
    request.tokens += [1, 2, 3, 4]
    step(drafter, request, 1, row(1, 2))
    assert drafter.propose_one(request, DraftLimits(3)).tokens == (2, 3, 4)


def test_requests_share_nothing_and_nothing_is_kept_of_a_finished_one() -> None:
    drafter = drafter_of("logitspec:guesses=1")
    first, second = request_of(drafter, 1, 2, 3, 0), request_of(drafter, 9)
    step(drafter, first, 1, row(1, 2))
    assert len(drafter.propose_one(second, DraftLimits(9))) == 0
    step(drafter, second, 1, row(1, 2))
    assert drafter.propose_one(second, DraftLimits(9)).tokens == (2,)  # the first's text would go on
    drafter.finish(first)
    drafter.finish(first)
    drafter.finish(Kind({}).request(SIZE, 5))  # never started
    drafter.finish(second)
    assert not drafter._texts
