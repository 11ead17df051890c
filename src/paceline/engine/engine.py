"""The step loop: sweep, admit, read on in prompts, then draft, score, verify, commit, observe. There is one.

An empty tree is plain decoding. Knows nothing of text formats, models or HTTP. One thread at a time may call an engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.engine.deadlines import check_first_token, missed, seconds_left
from paceline.engine.drafting import Drafting, budget_of
from paceline.engine.listener import EngineListener, tell
from paceline.engine.load import EngineLoad, RequestSnapshot, snapshots
from paceline.engine.ports import Pacer, StepTimes, Target
from paceline.engine.rates import Rates
from paceline.engine.reading import PromptReader
from paceline.engine.request import Request, StepOutcome
from paceline.engine.scheduler import Scheduler
from paceline.engine.trace import StepRecord
from paceline.engine.tree import DraftTree
from paceline.engine.verify import verify
from paceline.errors import EngineError, RequestError

MAX_RUNNING = 64
_WATERMARK = 0.03  # of the cache: left free when a request is admitted, for those that run to grow into


@dataclass(slots=True)
class _Care:
    """What an engine keeps of a request."""

    pacer: Pacer
    num_unread: int  # when it came
    has_started: bool = False  # drafters and pacer know it


class Engine:
    """Decodes requests together over one target; they join and leave between steps.

    Of a request that decodes the target's cache holds `tokens[:-1]` between steps.
    """

    def __init__(
        self,
        target: Target,
        pacer: Pacer,
        max_running: int = MAX_RUNNING,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.target = target
        self.pacer = pacer
        self.scheduler = Scheduler(max_running)
        self.rates = Rates()
        self.listeners: list[EngineListener] = []
        self._clock = clock
        self._drafting = Drafting(target.vocab_size, clock)
        self._reader = PromptReader(target, self.scheduler, self.rates, clock, self._has_room)
        self._cares: dict[int, _Care] = {}  # by request id
        self._num_preemptions = 0

    def add(self, request: Request, pacer: Pacer | None = None) -> None:
        """Queue a request; its tokens arrive in its `outbox` as steps are taken.

        One whose deadline cannot be met is refused: it ends at once. `pacer` in place of the engine's own. Those that
        run together have one pacer: a request with another waits.
        """
        if pacer is not None:
            for drafter in request.drafters:
                pacer.attach(drafter, self.target)
        request.times.arrived = self._clock()
        self._cares[request.id] = _Care(pacer or self.pacer, self._reader.num_unread(request))
        self._pacer_of(request).arrive(request)
        self.scheduler.add(request)
        self._refuse_if_late(request)

    def step(self) -> list[StepOutcome]:
        """Advance every request that decodes by at least one token: one draft, one forward, one verification.

        Before that, requests are admitted, and some prompts are read on. A step that fails ends the requests that
        took part in it with an `EngineError` each, since their laws may have moved on without their tokens; the next
        step goes on with the others. An interruption (Ctrl-C) ends all that run, and goes on to the caller.
        """
        try:
            self.sweep()
            self._admit()
            self._read()
            return self._decode()
        except Exception as error:
            self.fail(self.scheduler.decoding, error)
            return []
        except BaseException as error:
            self.fail(self.scheduler.running, error)
            raise

    def sweep(self) -> None:
        """Stop those requests whose callers have given them up, and those whose deadlines have passed."""
        now = self._clock()
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            if request.is_cancelled:
                self.abort(request)
            elif seconds_left(request, now) <= 0.0:
                self._expire(request)

    def abort(self, request: Request) -> None:
        """Stop a request wherever it is and give back all it holds; does nothing if it has been released."""
        if request in self.scheduler:
            request.abandon()
            self._finish(request)

    def fail(self, requests: Sequence[Request], error: BaseException) -> None:
        """End requests with an error of their own each, which keeps the cause."""
        for request in list(requests):
            if request.is_cancelled:
                request.abandon()
            elif request.finish_reason is None:
                failure = EngineError(f"request {request.id} ended with a step that failed: {error!r}")
                failure.__cause__ = error
                request.fail(failure)
            self._finish(request)

    def _refuse(self, request: Request, error: RequestError) -> None:
        request.fail(error)
        self._finish(request)

    def _refuse_if_late(self, request: Request) -> bool:
        """Refuse a request that could not get its first token in time; whether it was."""
        if request.terms.deadline is None or request.num_output_tokens > 0:
            return False
        ahead = sum(self._cares[other.id].num_unread for other in self.scheduler.ahead_of(request))
        needed = self.rates.first_token(ahead + self._reader.num_unread(request))
        try:
            check_first_token(needed, seconds_left(request, self._clock()))
        except RequestError as error:
            self._refuse(request, error)
            return True
        return False

    def _admit(self) -> None:
        """Set cache aside for requests that wait, as far as there is room."""
        for request in self.scheduler.admit(self._may_start):
            request.times.admitted = self._clock()
            tell(self.listeners, lambda listener, request=request: listener.admitted(request))  # type: ignore[misc]

    def _may_start(self, request: Request) -> bool:
        """Set cache aside for a request; False if it has to wait, or has ended: refused, or failed."""
        running = self.scheduler.running
        if self._refuse_if_late(request) or (running and self._pacer_of(request) is not self._pacer_of(running[0])):
            return False
        try:
            has_room = self.target.reserve(request, int(_WATERMARK * self.target.capacity) if running else 0)
        except Exception as error:
            self.fail([request], error)
            return False
        if not has_room and not running:
            self.fail([request], RequestError("nothing runs, and the cache has no room for it"))
        return has_room

    def _pacer_of(self, request: Request) -> Pacer:
        return self._cares[request.id].pacer

    def _read(self) -> None:
        """Read on in prompts; who has read all of it decodes from now on, and who cannot fails alone."""
        for request, failure in self._reader.read():
            try:
                if failure is not None:
                    raise failure
                self._begin(request)
            except Exception as error:
                self.fail([request], error)

    def _begin(self, request: Request) -> None:
        """Let a request decode whose tokens are in the cache, but for the pending one."""
        care, seconds = self._cares[request.id], self._reader.take_seconds(request)
        request.on_prompt_logits = None
        self.scheduler.has_read(request)
        if request.max_tokens == 0 or request.given is not None:
            self._cut(request, None)
        elif care.has_started:
            care.pacer.resume(request, seconds)
        else:
            care.has_started = True
            care.pacer.start(request, seconds)
            started = self._clock()
            self._drafting.start(request)
            request.stats.prefill_seconds += self._clock() - started

    def _cut(self, request: Request, stop_reason: str | None) -> None:
        request.cut(stop_reason)
        self._finish(request)

    def _decode(self) -> list[StepOutcome]:
        self._cut_late()
        requests = self._with_room()
        if not requests:
            return []
        self._drafting.begin_step()
        drafting = self._clock()
        pacer = self._pacer_of(requests[0])
        trees = pacer.draft(requests, budget_of(requests, self.target.row_counts[-1]), self._drafting.ask)
        trees = [self._fitting(*work) for work in zip(requests, trees, strict=True)]
        scoring = self._clock()
        scores = self.target.score(list(zip(requests, trees, strict=True)))
        committing = self._clock()
        hosting = self.target.hosting * (committing - scoring)
        outcomes = [self._commit(*work) for work in zip(requests, trees, scores, strict=True)]
        self._learn(outcomes, StepTimes(drafting, scoring, committing, self._clock(), hosting), pacer)
        self.rates.learn_step(self._clock() - drafting)
        return outcomes

    def _cut_late(self) -> None:
        """End those whose deadlines the next step would overrun."""
        end = self._clock() + self.rates.step
        for request in [one for one in self.scheduler.decoding if seconds_left(one, end) < 0.0]:
            self._expire(request)

    def _expire(self, request: Request) -> None:
        """End a request whose deadline has come: with what it has, or refused if that is nothing."""
        if request.num_output_tokens and request.given is None:
            self._cut(request, "deadline")
        else:
            self._refuse(request, missed())

    def _with_room(self) -> list[Request]:
        """Those that decode, each with room for its pending token; whose work is least waits again if there is none."""
        for request in list(self.scheduler.decoding):
            self._has_room(request, 1)
        return list(self.scheduler.decoding)

    def _has_room(self, request: Request, num_rows: int) -> bool:
        """Make room for rows of a running request; False if it is the one that has to leave."""
        while request in self.scheduler.running and self.target.grow(request, num_rows) < num_rows:
            if len(self.scheduler.running) == 1:
                self.fail([request], RequestError("nothing else runs, and the cache has no room for another token"))
            else:
                self._preempt(self.scheduler.victim(self._work))
        return request in self.scheduler.running

    def _work(self, request: Request) -> int:
        """Positions that are in the cache."""
        return len(request.tokens) - 1 - self.target.num_unread(request)

    def _preempt(self, request: Request) -> None:
        self.target.free(request)
        self.scheduler.preempt(request)
        request.stats.num_preemptions += 1
        self._num_preemptions += 1
        tell(self.listeners, lambda listener: listener.preempted(request))

    def _fitting(self, request: Request, tree: DraftTree) -> DraftTree:
        """As much of a tree as there is room for in the cache."""
        return tree.first(self.target.grow(request, len(tree) + 1) - 1)

    def _commit(self, request: Request, tree: DraftTree, logits: NDArray[np.float32]) -> StepOutcome:
        """Verify a tree and commit what the target says; a request that cannot go on fails alone."""
        try:
            verdict = verify(tree, logits, request.sampler)
        except RequestError as error:
            request.fail(error)
            return StepOutcome(request, tree, (), (), logits)
        sources = [*(tree.sources[node] for node in verdict.path), "target"]
        tokens = request.commit(verdict.sampled, sources)
        if request.times.first_token is None:
            request.times.first_token = self._clock()
        if request.finish_reason is None:
            self.target.commit(request, verdict.path)
        accepted = [tree.sources[node] for node in verdict.path[: len(tokens)]]
        outcome = StepOutcome(request, tree, verdict.path, tokens, logits)
        request.stats.observe(list(tree.sources), accepted, len(tokens), outcome.num_evaluated_drafts)
        return outcome

    def _learn(self, outcomes: Sequence[StepOutcome], times: StepTimes, pacer: Pacer) -> None:
        """Tell the drafters that were asked, the pacer, the statistics and listeners; release what has ended."""
        self._drafting.observe(outcomes)
        pacer.observe(outcomes, times)
        for outcome in outcomes:
            stats = outcome.request.stats
            stats.forward_seconds += times.committing - times.scoring
            now = self._clock()
            stats.decode_seconds += now - times.drafting
            outcome.request.trace.append(_record(outcome, times, now))
        tell(self.listeners, lambda listener: listener.stepped(outcomes, times))
        for outcome in outcomes:
            if outcome.request.finish_reason is not None:
                self._finish(outcome.request)

    def _finish(self, request: Request) -> None:
        request.times.finished = self._clock()
        self._drafting.finish(request)
        self._reader.take_seconds(request)
        care = self._cares.pop(request.id, None)
        (care.pacer if care else self.pacer).finish(request)
        self.target.free(request)
        self.scheduler.remove(request)
        tell(self.listeners, lambda listener: listener.finished(request))

    def rest(self) -> bool:
        """Nothing is decoded: have drafters do what can wait, in a few milliseconds; whether there is more of it."""
        return self._drafting.rest()

    def load(self) -> EngineLoad:
        """How much there is to do; to be called in the engine's thread."""
        scheduler = self.scheduler
        num_running = len(scheduler.decoding) + len(scheduler.reading)
        usage, preempted = self.target.cache_usage, self._num_preemptions
        learnt = self._drafting.learnt()
        return EngineLoad(num_running, scheduler.num_waiting, len(scheduler.reading), usage, preempted, learnt)

    def snapshot(self) -> list[RequestSnapshot]:
        """Every request as it is; to be called in the engine's thread."""
        return snapshots(self.scheduler, self._work, self._clock())


def _record(outcome: StepOutcome, times: StepTimes, end: float) -> StepRecord:
    seconds = (times.scoring - times.drafting, times.committing - times.scoring, end - times.committing)
    return StepRecord(outcome.tree, outcome.path, len(outcome.tokens), *seconds)
