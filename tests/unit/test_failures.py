"""What goes wrong stays with the request it belongs to, and nothing is left held."""

from __future__ import annotations

import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paceline import LLM, EngineError, RequestError
from paceline.drafters import BaseDrafter
from paceline.engine.tree import DraftTree
from paceline.loading import Loaded
from paceline.pacing import FixedPacer
from paceline.runtime import Runtime
from paceline.testing import ScriptedDrafter, ScriptedTarget, chain
from unit.stepped import SteppedTarget, counted, has_mail, let_join, until


def counting(**options) -> ScriptedTarget:
    return ScriptedTarget(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7, **options)


def everything_but(*kept: int) -> dict[int, float]:
    return {token: float("-inf") for token in range(7) if token not in kept}


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}])
def test_forbidding_every_token_is_refused_in_words(options) -> None:
    target = counting()
    with pytest.raises(RequestError, match="every token is forbidden at position 2"):
        LLM.from_target(target, None).generate([1, 2], max_tokens=3, logit_bias=everything_but(), **options)
    assert target.num_held == 0


def test_a_request_that_fails_leaves_the_others_of_its_steps_alone() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, None, drafters="none")
    good = llm.stream([1], max_tokens=9)
    target.let()
    first = next(good)
    with ThreadPoolExecutor(1) as threads:
        bad = threads.submit(llm.generate, [3], max_tokens=4, logit_bias=everything_but())
        has_mail(llm)
        target.let(20)
        with pytest.raises(RequestError, match="every token is forbidden"):
            bad.result(60)
    rest = [token.id for token in good]
    assert [first.id, *rest] == [2, 3, 4, 5, 6, 0, 1, 2, 3]
    assert target.num_held == 0


def test_a_request_that_can_never_fit_is_refused_and_harms_nobody() -> None:
    target = counting(cache_tokens=20)
    llm = LLM.from_target(target, None)
    running = llm.stream([1], max_tokens=10)
    next(running)
    with pytest.raises(RequestError, match=r"max_tokens \(16\) exceed the cache, which holds 20"):
        llm.generate([1] * 5, max_tokens=16)
    assert len(list(running)) == 9


def interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_ctrl_c_ends_its_own_request_alone() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, None, drafters="none")
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(llm.generate, [2], max_tokens=9)
        target.waits.wait(60)
        together = threads.submit(let_join, llm, target, 3)
        together.add_done_callback(lambda done: interrupt_main())
        with pytest.raises(KeyboardInterrupt):
            llm.generate([[1], [3]], max_tokens=9)
        target.let(20)
        assert other.result(60).token_ids == tuple(counted(2, 9))
    assert llm.generate([1], max_tokens=2).token_ids == (2, 3)
    assert target.num_held == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_an_interrupted_stream_has_what_was_read_as_its_output() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, None, drafters="none")
    stream = llm.stream([1], max_tokens=9)
    target.let(2)
    read = [next(stream).id, next(stream).id]
    target.waits.wait(60)
    request = stream._reader._job.request

    def interrupt() -> None:
        for _ in range(60):  # a signal just before the main thread waits is noticed with the next one
            interrupt_main()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                if request.is_cancelled:  # else a step more may have begun, which nobody lets go
                    return
                time.sleep(0.001)

    target.before = interrupt
    target.let()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert (stream.output.finish_reason, read) == ("abort", [2, 3])
    assert [token.id for token in stream.output.tokens][:2] == read
    assert target.num_held == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_ctrl_c_does_not_wait_for_a_model_that_is_being_read() -> None:
    goes_on, has_ended = threading.Event(), threading.Event()

    def load() -> Loaded:
        until(lambda: sys._current_frames()[threading.main_thread().ident].f_code.co_name == "wait")
        time.sleep(0.1)  # a signal just before it waits would be seen behind the wait alone
        interrupt_main()
        assert goes_on.wait(60), "the caller waited for the load"
        has_ended.set()
        return Loaded(counting(), None, FixedPacer())

    with pytest.raises(KeyboardInterrupt):
        Runtime(load, "none")
    goes_on.set()
    assert has_ended.wait(60)


class Leaves(ScriptedDrafter):
    """Ends the thread that it runs in."""

    def observe(self, outcome):
        raise SystemExit(3)


def test_what_would_end_the_thread_is_a_failed_step_and_the_engine_goes_on() -> None:
    target = counting()
    llm = LLM.from_target(target, None, drafters="none")
    with pytest.raises(EngineError, match="SystemExit") as caught:
        llm.generate([[1], [2]], max_tokens=9, drafters=[Leaves(lambda request, budget: [request.tokens[-1]])])
    assert isinstance(caught.value.__cause__, SystemExit)
    assert target.num_held == 0
    assert llm.generate([1], max_tokens=2).token_ids == (2, 3)


class Unlucky(ScriptedTarget):
    """A target whose forward fails now and then."""

    every = 7

    def score(self, work):
        if (self.num_forwards + 1) % self.every == 0:
            self.num_forwards += 1
            raise RuntimeError("no such memory")
        return super().score(work)


def test_a_failed_step_is_an_error_to_everybody_who_took_part_and_the_engine_goes_on() -> None:
    """Two streams: both are told, and none is cut short in silence."""
    target = Unlucky(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7)
    llm = LLM.from_target(target, None, drafters="none")
    one, other = llm.stream([1], max_tokens=200), llm.stream([2], max_tokens=200)
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
    llm = LLM.from_target(target, None, drafters="none")

    class Moody(ScriptedDrafter):
        def propose_one(self, request, limits):
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
    target = SteppedTarget()
    llm = LLM.from_target(target, None, drafters="none")
    target.let()
    good = llm.stream([1], max_tokens=9)
    next(good)
    read, target.read = target.read, lambda request, max_rows: 1 / 0
    with ThreadPoolExecutor(1) as threads:
        bad = threads.submit(llm.generate, [2, 3], max_tokens=4)
        has_mail(llm)
        target.let(20)
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            bad.result(60)
    target.read = read
    assert len(list(good)) == 8
    assert target.num_held == 0


class Broken(BaseDrafter):
    name = "broken"

    def __init__(self, score: float) -> None:
        self.score = score
        self.finished = 0

    def propose(self, requests, limits):
        return [DraftTree((2,), (-1,), (self.score,), ("broken",)) for _ in requests]

    def finish(self, request):
        self.finished += 1


@pytest.mark.parametrize("score", [float("nan"), 1.5, "high"])
def test_a_drafter_dismissed_for_its_scores_is_told_to_finish(score) -> None:
    drafter = Broken(score)
    with pytest.warns(UserWarning, match="drafter 'broken' failed and is left out"):
        out = LLM.from_target(counting(), None).generate([1], max_tokens=4, drafters=[drafter])
    assert out.token_ids == (2, 3, 4, 5)
    assert drafter.finished == 1
    assert out.stats.drafters["broken"].num_failures == 1
