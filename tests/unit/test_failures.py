"""What goes wrong stays with the request it belongs to, and nothing is left held."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paceline import LLM, EngineError, RequestError
from paceline.drafters import BaseDrafter
from paceline.engine.tree import DraftTree
from paceline.testing import ScriptedDrafter, ScriptedTarget, chain


def counting(**options) -> ScriptedTarget:
    return ScriptedTarget(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7, **options)


def everything_but(*kept: int) -> dict[int, float]:
    return {token: float("-inf") for token in range(7) if token not in kept}


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}])
def test_forbidding_every_token_is_refused_in_words(options) -> None:
    target = counting()
    with pytest.raises(RequestError, match="every token is forbidden at position 2"):
        LLM(target, None).generate([1, 2], max_tokens=3, logit_bias=everything_but(), **options)
    assert target.num_held == 0


def test_a_request_that_fails_leaves_the_others_of_its_steps_alone() -> None:
    target = counting()
    llm = LLM(target, None, drafters="none")
    good = llm.stream([1], max_tokens=9)
    first = next(good)
    with pytest.raises(RequestError, match="every token is forbidden"):
        llm.generate([3], max_tokens=4, logit_bias=everything_but())
    rest = [token.id for token in good]
    assert [first.id, *rest] == [2, 3, 4, 5, 6, 0, 1, 2, 3]
    assert target.num_held == 0


def test_a_request_that_can_never_fit_is_refused_and_harms_nobody() -> None:
    target = counting(cache_tokens=20)
    llm = LLM(target, None)
    running = llm.stream([1], max_tokens=10)
    next(running)
    with pytest.raises(RequestError, match=r"max_tokens \(16\) exceed the cache, which holds 20"):
        llm.generate([1] * 5, max_tokens=16)
    assert len(list(running)) == 9


def test_an_interrupted_step_releases_every_request_also_one_that_had_just_finished() -> None:
    target = counting()
    llm = LLM(target, None, drafters="none")
    steps = iter([None, KeyboardInterrupt()])

    class Interrupts(ScriptedDrafter):
        def propose_one(self, request, budget):
            return chain([(request.tokens[-1] + 1) % 7])  # right: the request ends with this step

        def observe(self, outcome):
            if (error := next(steps)) is not None:
                raise error

    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1], [2]], max_tokens=2, drafters=[Interrupts()])
    assert target.num_held == 0
    assert llm.engine.scheduler.is_idle
    assert llm.generate([1], max_tokens=2).token_ids == (2, 3)


@pytest.mark.parametrize(("max_tokens", "reason"), [(2, "length"), (9, "abort")])
def test_an_interruption_is_no_failure_to_its_own_request_but_to_others(max_tokens: int, reason: str) -> None:
    class Interrupts(ScriptedDrafter):
        def propose_one(self, request, budget):
            return chain([(request.tokens[-1] + 1) % 7])

        def observe(self, outcome):
            raise KeyboardInterrupt

    target = counting()
    llm = LLM(target, None, drafters="none")
    other = llm.stream([2], max_tokens=9)
    next(other)
    own = llm.stream([1], max_tokens=max_tokens, drafters=[Interrupts()])
    with pytest.raises(KeyboardInterrupt):
        next(own)
    assert own.output.finish_reason == reason
    with pytest.raises(EngineError, match="KeyboardInterrupt"):
        list(other)
    assert target.num_held == 0


class Unlucky(ScriptedTarget):
    """A target whose forward fails now and then."""

    every = 7

    def score(self, work):
        if (self.num_forwards + 1) % self.every == 0:
            self.num_forwards += 1
            raise RuntimeError("no such memory")
        return super().score(work)


def test_a_failed_step_is_an_error_to_everybody_who_took_part_and_the_engine_goes_on() -> None:
    """Two streams of one thread: the one that did not step is told too, and not cut short in silence."""
    target = Unlucky(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7)
    llm = LLM(target, None, drafters="none")
    one, other = llm.stream([1], max_tokens=20), llm.stream([2], max_tokens=20)
    next(other)
    for stream in (one, other):
        with pytest.raises(EngineError, match="no such memory") as caught:
            list(stream)
        assert isinstance(caught.value.__cause__, RuntimeError)
    assert target.num_held == 0
    assert llm.generate([1], max_tokens=3).token_ids == (2, 3, 4)


def test_threads_get_their_whole_output_or_an_error() -> None:
    """Many threads, a target that fails now and then, and a drafter that does: nothing is cut, nothing is left held."""
    target = Unlucky(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7)
    target.every = 23
    llm = LLM(target, None, drafters="none")

    class Moody(ScriptedDrafter):
        def propose_one(self, request, budget):
            if len(request.tokens) % 5 == 4:
                raise ValueError("not today")
            return chain([(request.tokens[-1] + 1) % 7])

    def ask(i: int) -> str:
        drafters = [Moody()] if i % 2 else "none"
        length = 1 + i % 17
        try:
            out = llm.generate([i % 7], max_tokens=length, drafters=drafters)
        except EngineError as error:
            return type(error.__cause__).__name__
        assert out.token_ids == tuple((i + 1 + k) % 7 for k in range(length))
        assert out.finish_reason == "length"
        return "whole"

    with warnings.catch_warnings(), ThreadPoolExecutor(5) as threads:
        warnings.simplefilter("ignore", UserWarning)  # dismissed drafters, which is another test's business
        ends = list(threads.map(ask, range(120)))
    assert set(ends) == {"whole", "RuntimeError"}
    assert target.num_held == 0
    assert llm.engine.scheduler.is_idle


def test_a_prompt_that_cannot_be_read_fails_alone() -> None:
    target = counting()
    llm = LLM(target, None, drafters="none")
    good = llm.stream([1], max_tokens=9)
    next(good)
    prefill, target.prefill = target.prefill, lambda request: 1 / 0
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        llm.generate([3], max_tokens=4)
    target.prefill = prefill
    assert len(list(good)) == 8
    assert target.num_held == 0


class Broken(BaseDrafter):
    name = "broken"

    def __init__(self, score: float) -> None:
        self.score = score
        self.finished = 0

    def propose(self, requests, budgets):
        yield [DraftTree((2,), (-1,), (self.score,), ("broken",)) for _ in requests]

    def finish(self, request):
        self.finished += 1


@pytest.mark.parametrize("score", [float("nan"), 1.5, "high"])
def test_a_drafter_dismissed_for_its_scores_is_told_to_finish(score) -> None:
    drafter = Broken(score)
    with pytest.warns(UserWarning, match="drafter 'broken' failed and is left out"):
        out = LLM(counting(), None).generate([1], max_tokens=4, drafters=[drafter])
    assert out.token_ids == (2, 3, 4, 5)
    assert drafter.finished == 1
    assert out.stats.drafters["broken"].num_failures == 1
