"""The step loop: a drafter never kills a request, and nothing is held once a request has ended."""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np
import pytest

from law.support import DRAFTERS, Kind, decode, target_of
from paceline import LLM
from paceline.engine.engine import Engine
from paceline.engine.tree import DraftTree
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter, ScriptedTarget, chain
from unit.stepped import SteppedTarget, counted

VOCAB = 7
HOW = {"max_tokens": 23, "temperature": 1.0, "seed": 5}


class Failing(ScriptedDrafter):
    """A perfect drafter that raises in one method, at its `at`-th call."""

    def __init__(self, method: str, at: int, target: ScriptedTarget) -> None:
        super().__init__(ScriptedDrafter.perfect(target)._script)
        calls = itertools.count(1)
        inner = getattr(self, method)

        def failing(*args):
            if next(calls) == at:
                raise RuntimeError(f"no {method} today")
            return inner(*args)

        setattr(self, method, failing)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("method", ["start", "propose", "observe", "finish"])
def test_a_drafter_that_raises_is_dismissed_and_the_output_unchanged(method: str, at: int) -> None:
    target = target_of(VOCAB)
    prompts = [[1, 2], [3], [4, 0, 4]]
    plain = LLM.from_target(target, None, drafters="none").generate(prompts, **HOW)
    llm = LLM.from_target(target, None, drafters=[DRAFTERS["branching"](target), Failing(method, at, target)])
    with pytest.warns(UserWarning, match=f"drafter 'scripted-2' failed and is left out of request.*no {method} today"):
        outputs = llm.generate(prompts, **HOW)
    assert [o.token_ids for o in outputs] == [o.token_ids for o in plain]
    assert sum(o.stats.drafters["scripted-2"].num_failures for o in outputs) >= 1
    assert target.num_held == 0


def test_a_dismissed_drafter_is_not_asked_again() -> None:
    asked = []

    def script(request, budget):
        asked.append(request.id)
        raise ValueError("never again")

    target = target_of(VOCAB)
    with pytest.warns(UserWarning, match="never again"):
        LLM.from_target(target, None, drafters=[ScriptedDrafter(script)]).generate([1, 2], **HOW)
    assert len(asked) == 1


def tree(tokens, parents, scores=None, sources=None) -> DraftTree:
    size = len(tokens)
    return DraftTree(tokens, parents, scores or (1.0,) * size, sources or ("bad",) * size)


BROKEN = {
    "over its budget": (chain([1] * 8), "proposed 8 nodes; allowed: 7"),
    "a child before its parent": (tree((1, 2), (1, -1)), "a node that stands before its parent"),
    "its own parent": (tree((1,), (0,)), "a node that stands before its parent"),
    "a parent below the root": (tree((1,), (-2,)), "a node that stands before its parent"),
    "a token outside the vocabulary": (chain([VOCAB]), f"a token outside the vocabulary of {VOCAB}"),
    "a negative token": (chain([-1]), f"a token outside the vocabulary of {VOCAB}"),
    "fields of unequal length": (
        tree((1, 2), (-1, 0), scores=(1.0,)),
        "a tree whose fields differ in length",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_drafter_that_breaks_its_port_is_dismissed_in_words(name: str) -> None:
    proposal, message = BROKEN[name]
    target = target_of(VOCAB)
    plain = LLM.from_target(target, None, drafters="none").generate([1, 2], **HOW)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter([chain([1]), proposal])])
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert llm.generate([1, 2], **HOW).token_ids == plain.token_ids


def test_too_few_trees_for_the_requests_dismiss_the_drafter() -> None:
    class Short(ScriptedDrafter):
        def propose(self, requests, limits):
            return super().propose(requests, limits)[1:]

    target = target_of(VOCAB)
    plain = LLM.from_target(target, None, drafters="none").generate([[1, 2], [3]], **HOW)
    with pytest.warns(UserWarning, match="drafter 'scripted' failed"):
        outputs = LLM.from_target(target, None, drafters=[Short()]).generate([[1, 2], [3]], **HOW)
    assert [o.token_ids for o in outputs] == [o.token_ids for o in plain]


def test_every_drafter_is_started_told_of_each_step_in_which_it_was_asked_and_finished() -> None:
    target = target_of(VOCAB)
    drafter = ScriptedDrafter.adversarial(target, right=1)
    outputs = LLM.from_target(target, None, drafters=[drafter]).generate([[1, 2], [3], [4]], **HOW)
    asked = [o.stats.drafters["scripted"].num_proposals for o in outputs]
    assert len(drafter.outcomes) == sum(asked)
    assert asked == [11, 11, 11]  # two tokens a step, and for the last token nobody is asked
    assert sum(len(o.tokens) for o in drafter.outcomes) == 3 * 22
    assert drafter.active == set()
    assert target.num_held == 0


@pytest.mark.parametrize("max_tokens", [1, 2, 9])
def test_the_last_token_is_never_drafted_by_a_drafter_that_is_always_wrong(max_tokens: int) -> None:
    target = target_of(VOCAB)
    drafter = ScriptedDrafter.adversarial(target)
    LLM.from_target(target, None, drafters=[drafter]).generate([1, 2], max_tokens=max_tokens)
    assert [len(outcome.tree) > 0 for outcome in drafter.outcomes] == [True] * (max_tokens - 1)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_an_aborted_request_frees_what_it_holds_and_the_others_go_on(steps: int) -> None:
    target = target_of(VOCAB)
    drafter = DRAFTERS["branching"](target)
    kind = Kind({"temperature": 1.0})
    [alone] = decode(target, [kind.request(VOCAB, 31, seed=1)])
    kept, aborted, waiting = (kind.request(VOCAB, 31, seed=s, drafters=[drafter]) for s in (1, 2, 3))
    engine = Engine(target, FixedPacer(), max_running=2)
    for request in (kept, aborted, waiting):
        engine.add(request)
    for _ in range(steps):
        engine.step()
    for request in (aborted, waiting, waiting):
        engine.abort(request)
    assert target.num_held == len(drafter.active) == (1 if steps else 0)
    while not engine.scheduler.is_idle:
        engine.step()
    assert tuple(kept.tokens[2:]) == alone
    assert (aborted.finish_reason, waiting.finish_reason, kept.finish_reason) == ("abort", "abort", "length")
    assert (target.num_held, drafter.active) == (0, set())


def test_a_finished_request_is_not_aborted() -> None:
    target = target_of(VOCAB)
    request = Kind({}).request(VOCAB, 3)
    decode(target, [request])
    Engine(target, FixedPacer()).abort(request)
    assert request.finish_reason == "length"


def test_a_step_without_requests_does_nothing() -> None:
    target = target_of(VOCAB)
    assert Engine(target, FixedPacer()).step() == []
    assert target.num_forwards == 0


def test_requests_of_a_batch_share_each_forward() -> None:
    target = target_of(VOCAB)
    LLM.from_target(target, None, drafters="none").generate([[1], [2, 3], [4]], max_tokens=9)
    assert target.num_forwards == 9


def test_a_stream_that_is_closed_early_frees_what_it_holds() -> None:
    target = SteppedTarget()
    drafter = ScriptedDrafter(lambda request, budget: counted(request.tokens[-1], 1))
    llm = LLM.from_target(target, None, drafters=[drafter])
    target.let(3)
    stream = llm.stream([1, 2], max_tokens=23)
    seen = [next(stream).id for _ in range(5)]
    target.waits.wait(60)
    assert (target.num_held, len(drafter.active)) == (1, 1)
    target.let()
    stream.close()
    assert (target.num_held, len(drafter.active)) == (0, 0)
    assert seen == counted(2, 5)
    assert stream.output.finish_reason == "abort"


def test_tokens_name_the_drafter_whose_node_was_accepted() -> None:
    target = target_of(VOCAB)
    output = LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)]).generate([1], max_tokens=16)
    assert [token.source for token in output.tokens] == [*["scripted"] * 7, "target"] * 2


def test_a_drafter_that_works_warns_of_nothing() -> None:
    target = target_of(VOCAB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)]).generate([1], **HOW)


def test_closing_the_llm_closes_its_drafters() -> None:
    drafter = ScriptedDrafter()
    with LLM.from_target(target_of(VOCAB), None, drafters=[drafter]):
        assert not drafter.is_closed
    assert drafter.is_closed


def test_the_last_token_is_never_drafted_and_no_row_stands_beyond_the_last_position() -> None:
    deepest: list[tuple[int, int]] = []

    class Watch(ScriptedTarget):
        def score(self, work):
            for request, tree in work:
                deepest.append((max(tree.depths, default=0), request.num_remaining))
            return super().score(work)

    target = Watch(lambda history: np.eye(5)[(history[-1] + 1) % 5], vocab_size=5)
    out = LLM.from_target(
        target, None, drafters=[ScriptedDrafter(lambda request, budget: [2, 3, 4, 0, 1, 2, 3][:budget])]
    ).generate([1], max_tokens=5)
    assert out.token_ids == (2, 3, 4, 0, 1)
    assert all(depth < max(remaining, 1) for depth, remaining in deepest)
    assert deepest[0] == (4, 5)


class Watching(FixedPacer):
    """A fixed pacer that remembers who was attached, what it has drafted for and who has ended."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.attached: list[str] = []
        self.batches: list[int] = []
        self.ended = 0

    def attach(self, drafter, target) -> None:
        self.attached.append(drafter.name)

    def draft(self, requests, most, ask):
        self.batches.append(len(requests))
        return super().draft(requests, most, ask)

    def finish(self, request) -> None:
        self.ended += 1


def test_a_call_may_bring_its_own_pacer() -> None:
    target = target_of(VOCAB)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)], pacer=FixedPacer(0))
    pacer = Watching(3)
    plain, paced = llm.generate([1, 2], **HOW), llm.generate([1, 2], pacer=pacer, **HOW)
    assert plain.token_ids == paced.token_ids
    assert (plain.stats.num_draft_tokens, paced.stats.num_steps) == (0, 6)  # 23 tokens: five by fours, and three
    assert (pacer.attached, pacer.batches, pacer.ended) == (["scripted"], [1] * 6, 1)
    assert llm.generate([1, 2], **HOW).stats.num_draft_tokens == 0  # the call's alone


def test_requests_with_different_pacers_take_turns() -> None:
    target = target_of(VOCAB)
    own, other = Watching(0), Watching(2)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)], pacer=own)
    streams = [llm.stream([1, 2], pacer=pacer, **HOW) for pacer in (None, other, None)]
    outputs = [[next(stream) for stream in streams]] and [list(stream) for stream in streams]
    assert all(outputs)
    assert {stream.output.token_ids for stream in streams} == {llm.generate([1, 2], **HOW).token_ids}
    assert set(own.batches) | set(other.batches) <= {1, 2}
    assert (own.ended, other.ended) == (3, 1)
