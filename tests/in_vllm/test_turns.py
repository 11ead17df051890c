"""Drafting beside vLLM's loop: whoever comes, goes, waits or changes rows, each request's tokens stay its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from in_vllm.loop import BASE, END, ROW, Loop, Scripted
from paceline.cache import cache_file
from paceline.engine.ports import StepTimes
from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.pacing import AdaptivePacer
from paceline.vllm.settings import Settings, made

Copier = type(made(["suffix"])[0])
PLAIN = BASE + ROW  # seconds of a plain step of one request


def noise(draw: Random, size: int, words: int = 1000) -> list[int]:
    return [draw.randrange(2, words) for _ in range(size)]


def copying(name: str, draw: Random, length: int, size: int, words: int = 1000) -> Scripted:
    """A request whose output is its prompt once more; of few words an end is among them now and then."""
    prompt = noise(draw, length, words)
    output = (prompt * (size // length + 1))[:size]
    if words < 1000 and draw.random() < 0.3:
        output[draw.randrange(size)] = END
    return Scripted(name, prompt, output)


def seconds(loop: Loop, *requests: Scripted) -> float:
    """What the loop takes for some requests."""
    loop.add(*requests)
    began = loop.now
    loop.run()
    return loop.now - began - 5.0  # it sleeps at the end


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 7]), st.sampled_from([5, 16, 64]))
@settings(max_examples=25)
def test_no_request_is_taken_for_another(seed: int, num_drafts: int, chunk: int) -> None:
    draw = Random(seed)
    loop = Loop(Settings(), num_drafts, chunk, seats=3)
    requests = [copying(f"r{i}", draw, draw.randrange(2, 40), draw.randrange(1, 60), words=9) for i in range(7)]
    propose = Copier.propose

    def spied(self: Drafter, asked: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        known = [one.tokens for one in requests]
        assert all(one.tokens in known for one in asked), "its tokens are none of vLLM's"
        return propose(self, asked, limits)

    observe = AdaptivePacer.observe

    def checked(self: AdaptivePacer, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        plan = self._plan
        assert plan is None or [outcome.request for outcome in outcomes] == plan.requests
        for tree in [outcome.tree for outcome in outcomes]:
            assert list(tree.parents) == list(range(-1, len(tree) - 1)), "vLLM verifies chains"
        observe(self, outcomes, times)

    late = requests[4:]
    loop.add(*requests[:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copier, "propose", spied)
        patch.setattr(AdaptivePacer, "observe", checked)
        while loop.running or loop.waiting or late:
            if late and draw.random() < 0.2:
                loop.add(late.pop())
            if loop.running and draw.random() < 0.05:
                loop.abort(draw.choice(loop.running))
            if loop.running and draw.random() < 0.1:
                loop.preempt(draw.choice(loop.running))
            draw.shuffle(loop.running)
            loop.step()
            for one in loop.running:
                known = loop.turns._following._known.get(one.name)
                assert known is None or known.request.stats.num_draft_tokens == one.num_drafted


def test_copies_take_a_fraction_of_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[StepOutcome] = []
    monkeypatch.setattr(Copier, "observe", lambda self, outcome: told.append(outcome))
    loop, draw = Loop(Settings(("suffix",))), Random(1)
    requests = [copying(f"r{i}", draw, 40, 160) for i in range(4)]
    taken = seconds(loop, *requests)
    assert [one.said for one in requests] == [one.output for one in requests]
    assert sum(one.num_steps for one in requests) < 0.5 * 4 * 160
    assert taken < 0.6 * 160 * (BASE + 4 * ROW)
    assert sum(outcome.num_accepted_drafts for outcome in told) > 0.4 * 4 * 160


def test_what_nobody_foresees_costs_what_was_promised() -> None:
    loop, draw = Loop(Settings(("suffix",), max_slowdown=0.02)), Random(2)
    pairs = [noise(draw, 9) for _ in range(12)]
    for i in range(5):  # texts of known words in an order of chance: drafters have much to say, most of it wrong
        text = [token for _ in range(30) for token in draw.choice(pairs)]
        taken = seconds(loop, Scripted(f"r{i}", text[:100], noise(draw, 150)))
        prefill = 100 * 0.0001 + 7 * BASE
        assert taken < 150 * PLAIN * 1.10 + 4 * PLAIN + prefill


def test_prompts_read_beside_it_teach_nothing_about_a_steps_cost() -> None:
    loop, draw = Loop(Settings(("suffix",)), chunk=400), Random(3)
    seconds(loop, copying("first", draw, 30, 60))
    pacer = loop.turns._pacer
    assert pacer is not None
    before = pacer.costs.forward(1, 0)
    loop.add(Scripted("long", noise(draw, 30), noise(draw, 60)))
    loop.step()
    for i in range(12):
        loop.add(Scripted(f"prompt {i}", noise(draw, 350), [END]))
        loop.step()
    assert pacer.costs.forward(1, 0) == before
    assert pacer.account(loop.turns._drafted[0]).elapsed < 14 * 2 * PLAIN  # nor are they its account's


def test_predictions_and_tenants_are_those_of_the_request() -> None:
    draw = Random(4)
    loop, said = Loop(Settings()), noise(draw, 60)
    seconds(loop, Scripted("warm", noise(draw, 5), noise(draw, 10)))
    foretold = Scripted("foretold", noise(draw, 5), said, {"paceline_prediction": said, "paceline_tenant": "a"})
    seconds(loop, foretold)
    assert foretold.num_steps < 15
    other = Scripted("b's", [2, 3], said, {"paceline_tenant": "b"})
    seconds(loop, other)
    assert other.num_steps == len(said) - 1  # nothing of a's drafts for b
    again = Scripted("a's", [2, 3], said, {"paceline_tenant": "a"})
    seconds(loop, again)
    assert again.num_steps < 25


def test_nothing_is_drafted_behind_an_end() -> None:
    loop, draw = Loop(Settings(), num_drafts=3), Random(7)
    seconds(loop, Scripted("warm", noise(draw, 5), noise(draw, 10)))
    for i in range(8):
        said = noise(draw, 30)
        said[10 + i] = END
        seconds(loop, Scripted(f"r{i}", noise(draw, 5), said, {"paceline_prediction": said}))  # the loop looks


def test_a_drafter_that_fails_is_left_out_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, draw = Loop(Settings(("suffix",))), Random(5)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Copier, "propose", fail)
    with pytest.warns(UserWarning, match="the disk is full"):
        seconds(loop, copying("r", draw, 20, 60))
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = copying("next", draw, 20, 60)
        seconds(loop, one)
    assert one.num_steps < 59  # another request is drafted for


def test_what_is_learnt_is_kept_for_the_next_process() -> None:
    draw = Random(6)
    loop = Loop(Settings(("suffix",)))
    seconds(loop, copying("r", draw, 30, 120))
    loop.turns.close()
    facts = loop.turns._facts
    assert cache_file("costs", facts.identity).is_file()
    assert cache_file("pacing", facts.identity).is_file()


def test_a_request_that_cannot_be_foreseen_does_not_hold_up_those_beside_it() -> None:
    loop, draw = Loop(Settings(("suffix",))), Random(8)
    seconds(loop, copying("first", draw, 40, 160))  # saves what may be spent now
    copies, other = (
        [copying(f"r{i}", draw, 40, 90) for i in range(3)],
        Scripted("other", noise(draw, 40), noise(draw, 90)),
    )
    loop.add(other)
    seconds(loop, *copies)
    assert sum(one.num_steps for one in copies) < 0.22 * 3 * 90  # were it held to a tenth, 0.30
