"""Recycled logits: what the table keeps, for whom, and the trees that grow from it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from law.support import Kind
from paceline.drafters import make
from paceline.drafters._recycling import CHANCES, Table, make_table
from paceline.drafters.recycle import RecycleDrafter
from paceline.engine.request import DraftLimits, Environment, Hints, Request, StepOutcome, Token
from paceline.engine.tree import DraftTree

SIZE = 11
KINDS = {"numpy": Table, "native": make_table}


@pytest.fixture(autouse=True, params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table in numpy, and the one that is used here."""
    monkeypatch.setattr("paceline.drafters.recycle.make_table", KINDS[request.param])


def drafter_of(vocab_size: int = SIZE, spec: str = "recycle") -> RecycleDrafter:
    drafter = make(spec)
    assert isinstance(drafter, RecycleDrafter)
    drafter.attach(Environment(None, vocab_size, "cpu"))
    return drafter


def request_of(drafter: RecycleDrafter, *prompt: int, tenant: str = "", vocab_size: int = SIZE) -> Request:
    request = Kind({}).request(vocab_size, 500, prompt=prompt)
    request.hints = Hints(tenant=tenant)
    assert drafter.start(request)
    return request


def row(vocab_size: int = SIZE, **chances: float) -> np.ndarray:
    """Logits of chances given as `t5=0.7`; the rest share what is left."""
    left = (1 - sum(chances.values())) / (vocab_size - len(chances))
    probabilities = np.full(vocab_size, left)
    for token, chance in chances.items():
        probabilities[int(token[1:])] = chance
    return np.log(probabilities).astype(np.float32)


def step(
    drafter: RecycleDrafter, request: Request, tree: DraftTree, path: tuple[int, ...], said: int, *rows: np.ndarray
) -> None:
    """One committed step: the path's tokens and `said`, from these logits."""
    ids = [*(tree.tokens[node] for node in path), said]
    request.tokens += ids
    tokens = tuple(Token(i, "", "target", 0.0, 0.0) for i in ids)
    drafter.observe(StepOutcome(request, tree, path, tokens, np.stack(rows)))


def chain(*tokens: int) -> DraftTree:
    size = len(tokens)
    return DraftTree(tokens, tuple(range(-1, size - 1)), (0.5,) * size, ("other",) * size, (0,) * size)


def children(tree: DraftTree, parent: int = -1) -> list[int]:
    return [token for token, above in zip(tree.tokens, tree.parents, strict=True) if above == parent]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_trees_are_well_formed_whatever_has_been_observed(data: st.DataObject) -> None:
    tokens = st.integers(0, SIZE - 1)
    drafter = drafter_of(spec=f"recycle:width={data.draw(st.integers(1, 20))},rows={data.draw(st.integers(1, 5))}")
    request = request_of(drafter, *data.draw(st.lists(tokens, min_size=1, max_size=30)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for _ in range(6):
        budget = data.draw(st.integers(0, 12))
        tree = drafter.propose_one(request, DraftLimits(budget))
        assert len(tree) <= budget
        assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
        assert len({*zip(tree.parents, tree.tokens, strict=True)}) == len(tree)
        assert all(0 <= token < SIZE for token in tree.tokens)
        assert all(0 < score <= 1 for score in tree.scores)
        assert all(0 <= bucket < 4 * (len(CHANCES) + 1) for bucket in tree.buckets)
        sums: Counter[int] = Counter()
        for parent, score in zip(tree.parents, tree.scores, strict=True):
            sums[parent] += score
        assert all(total <= 1 + 1e-6 for total in sums.values())
        path = (0,) if len(tree) and data.draw(st.booleans()) else ()
        logits = rng.normal(scale=rng.choice([0.1, 3, 60]), size=(len(tree) + 1, SIZE)).astype(np.float32)
        step(drafter, request, tree, path, data.draw(tokens), *logits)
        request.tokens += data.draw(st.lists(tokens, max_size=3))  # steps in which it was not asked


def test_a_rows_likeliest_tokens_are_proposed_when_its_token_comes_again() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    step(drafter, request, DraftTree(), (), 5, row(t7=0.6, t8=0.3))
    request.tokens += [4, 2]  # 2 after another token than before
    tree = drafter.propose_one(request, DraftLimits(3))
    assert children(tree)[:2] == [7, 8]
    assert tree.scores[0] > tree.scores[1]


def test_the_last_two_tokens_count_before_the_last_alone() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    step(drafter, request, DraftTree(), (), 3, row(t7=0.9))
    request.tokens += [4, 2]
    step(drafter, request, DraftTree(), (), 3, row(t8=0.9))
    request.tokens += [1, 2]
    assert children(drafter.propose_one(request, DraftLimits(1))) == [7]
    request.tokens += [9, 2]
    assert children(drafter.propose_one(request, DraftLimits(1))) == [8]


def test_rejected_nodes_are_learnt_from_and_the_path_has_the_last_word() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    tree = DraftTree((3, 4, 3), (-1, -1, 1), (0.5,) * 3, ("other",) * 3)
    step(drafter, request, tree, (0,), 6, row(t3=0.9), row(t7=0.9), row(t8=0.9), row(t9=0.9))
    request.tokens += [0, 4]  # a rejected node's token
    assert children(drafter.propose_one(request, DraftLimits(1))) == [8]
    request.tokens += [0, 3]  # accepted as node 0, rejected as node 2
    assert children(drafter.propose_one(request, DraftLimits(1))) == [7]


def test_no_more_rows_than_allowed_are_learnt_from() -> None:
    drafter = drafter_of(spec="recycle:rows=2")
    request = request_of(drafter, 1, 2)
    step(drafter, request, chain(3, 4), (), 5, row(t6=0.9), row(t7=0.9), row(t8=0.9))
    request.tokens += [0, 3]
    assert children(drafter.propose_one(request, DraftLimits(1))) == [7]
    request.tokens += [0, 4]
    assert len(drafter.propose_one(request, DraftLimits(1))) == 0


def test_chains_are_followed_from_row_to_row() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    rows = [row(t3=0.99), row(t4=0.99), row(t5=0.99), row(t6=0.99)]
    step(drafter, request, chain(3, 4, 5), (0, 1, 2), 6, *rows)
    request.tokens += [1, 2]
    assert drafter.propose_one(request, DraftLimits(4)).tokens == (3, 4, 5, 6)


def test_the_prompt_and_steps_that_were_missed_are_caught_up_with() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2, 3, 9, 1, 2)
    assert drafter.propose_one(request, DraftLimits(2)).tokens == (3, 9)
    request.tokens += [7, 8, 5, 7]  # not asked
    assert children(drafter.propose_one(request, DraftLimits(2))) == [8]
    request.tokens += [1, 2]
    assert children(drafter.propose_one(request, DraftLimits(1))) == [7]  # what followed last


def test_one_tenant_never_drafts_for_another() -> None:
    drafter = drafter_of()
    mine, other = request_of(drafter, 1, 2, tenant="a"), request_of(drafter, 1, 2, tenant="b")
    drafter.propose_one(mine, DraftLimits(4))
    step(drafter, mine, DraftTree(), (), 5, row(t7=0.9))
    request = request_of(drafter, 1, 2, tenant="a")
    assert children(drafter.propose_one(request, DraftLimits(2)))[0] == 7
    assert len(drafter.propose_one(other, DraftLimits(9))) == 0
    assert len(drafter.propose_one(request_of(drafter, 2), DraftLimits(9))) == 0


def test_the_tenant_served_longest_ago_is_forgotten_and_its_request_goes_on() -> None:
    drafter = drafter_of(spec="recycle:tenants=2")
    first = request_of(drafter, 1, 2, tenant="a")
    step(drafter, first, DraftTree(), (), 2, row(t7=0.9))
    for tenant in "bc":
        drafter.propose_one(request_of(drafter, 1, tenant=tenant), DraftLimits(1))
    assert len(drafter._tables) == 2
    assert 7 not in drafter.propose_one(first, DraftLimits(9)).tokens


def test_a_slot_taken_by_another_pair_says_nothing_of_the_old_one(monkeypatch) -> None:
    monkeypatch.setattr("paceline.drafters._recycling.table.PAIRS", 1)
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    step(drafter, request, DraftTree(), (), 3, row(t7=0.9))
    request.tokens += [4, 5, 6, 1, 2]
    [best, *_] = drafter.propose_one(request, DraftLimits(1)).scores
    assert best < 0.6  # the row of 2 alone


def test_nothing_is_kept_of_a_finished_request() -> None:
    drafter = drafter_of()
    request = request_of(drafter, 1, 2)
    drafter.propose_one(request, DraftLimits(2))
    drafter.finish(request)
    drafter.finish(request)
    drafter.finish(Kind({}).request(SIZE, 5))  # never started
    assert not drafter._read
    drafter.close()
    assert not drafter._tables
