"""Requests join and leave between steps: nothing changes their tokens, nobody starves, nothing stays held."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from law.support import KINDS, branching, decode, target_of
from paceline.engine.engine import Engine
from paceline.engine.reading import PromptReader
from paceline.engine.request import Request, Terms
from paceline.engine.scheduler import Scheduler
from paceline.errors import EngineError
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter, ScriptedTarget

VOCAB = 7
SCRIPT = target_of(VOCAB)  # one for all: it remembers what it has said


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(ScriptedTarget):
    """A target whose chunks and forwards take time: some for being run at all, some for each row."""

    step, chunk, row = 1.0, 0.4, 0.05

    def __init__(self, clock: Clock, cache_tokens: int | None = None, max_rows: int = 64) -> None:
        super().__init__(SCRIPT.logits, VOCAB, cache_tokens=cache_tokens, max_rows=max_rows)
        self.clock = clock
        self.chunks: list[tuple[Request, int]] = []
        self.events: list[str] = []

    def read(self, request, max_rows):
        count = super().read(request, max_rows)
        self.chunks.append((request, count))
        self.clock.now += self.chunk + self.row * count
        return count

    def score(self, work):
        self.clock.now += self.step
        return super().score(work)


@dataclass
class Scene:
    """An engine, and requests that come to it at certain steps."""

    cache_tokens: int | None = None
    max_running: int = 64
    budget: int = 0
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.target = Timed(self.clock, self.cache_tokens)
        self.engine = Engine(self.target, FixedPacer(self.budget), self.max_running, self.clock)

    def request(self, length: int, max_tokens: int, seed: int = 0, kind: str = "temperature 1", **more) -> Request:
        rng = np.random.default_rng([seed, length])
        prompt = [int(t) for t in rng.integers(1, 5, length)]
        terms = more.pop("terms", None)
        drafters = [branching(self.target)] if self.budget else []
        request = KINDS[kind].request(VOCAB, max(max_tokens, 1), seed=seed, prompt=prompt, drafters=drafters)
        request.max_tokens = max_tokens
        request.terms = terms or request.terms
        return request

    def due_in(self, seconds: float) -> Terms:
        return Terms(deadline=self.clock() + seconds)

    def run(self, max_steps: int = 5000) -> int:
        """Steps until nothing is left to do."""
        for number in range(max_steps):
            if self.engine.scheduler.is_idle:
                return number
            self.engine.step()
        raise AssertionError("somebody starves")


def tokens_of(request: Request) -> tuple[int, ...]:
    return tuple(request.tokens[request.num_prompt_tokens :])


@dataclass(frozen=True)
class Visit:
    arrival: int  # step
    length: int
    max_tokens: int
    seed: int
    kind: str
    cancelled_after: int | None  # steps since it came


VISITS = st.builds(
    Visit,
    st.integers(0, 25),
    st.integers(1, 30),
    st.integers(0, 25),
    st.integers(0, 3),
    st.sampled_from(["temperature 1", "regex", "repetition_penalty", "top_p"]),
    st.one_of(st.none(), st.none(), st.integers(0, 30)),
)


def play(scene: Scene, visits: list[Visit]) -> list[Request]:
    """Let them come and go; every step is watched."""
    target, engine = scene.target, scene.engine
    requests = [scene.request(v.length, v.max_tokens, v.seed, v.kind) for v in visits]
    bound = 60 + 8 * sum(v.length + v.max_tokens + 2 for v in visits)
    for number in range(bound):
        for visit, request in zip(visits, requests, strict=True):
            if visit.arrival == number:
                engine.add(request)
            if visit.cancelled_after is not None and visit.arrival + visit.cancelled_after == number:
                request.cancel()
        if number > 25 and engine.scheduler.is_idle:
            return requests
        decoding, before = list(engine.scheduler.decoding), len(target.chunks)
        engine.step()
        rows = [count for _, count in target.chunks[before:]]
        assert sum(rows) <= (engine.rates.rows_beside_a_step() if decoding else 64) or sum(rows) <= 64
        assert target.num_held == len(engine.scheduler.running)
        assert engine.load().num_running <= scene.max_running
    raise AssertionError("somebody starves")


def check(scene: Scene, visits: list[Visit], requests: list[Request]) -> None:
    """Everybody has what plain decoding alone gives, and nothing is held."""
    for visit, request in zip(visits, requests, strict=True):
        assert not isinstance(request.error, EngineError), request.error and request.error.__cause__
        assert request.finish_reason is not None
        fresh = replace(scene, budget=0, cache_tokens=None).request(
            visit.length, max(visit.max_tokens, 1), visit.seed, visit.kind
        )
        [alone] = decode(SCRIPT, [fresh])
        got = tokens_of(request)
        assert got == alone[: len(got)]
        assert len(got) == (len(alone) if visit.max_tokens else 0) or request.finish_reason == "abort"
        assert len(request.outbox) == len(got)
    assert scene.target.num_held == 0
    assert scene.engine.load().cache_usage == 0.0
    assert scene.target.num_free == scene.cache_tokens


@settings(max_examples=50, deadline=None)
@given(st.lists(VISITS, min_size=1, max_size=7), st.integers(60, 130), st.integers(1, 6), st.sampled_from([0, 4]))
def test_whatever_comes_and_goes_gets_what_it_gets_alone(
    visits: list[Visit], cache_tokens: int, max_running: int, budget: int
) -> None:
    scene = Scene(cache_tokens, max_running, budget)
    check(scene, visits, play(scene, visits))


CROWD = [Visit(i, 12 + i, 25, i, "repetition_penalty", None) for i in range(6)]


@pytest.mark.parametrize("budget", [0, 4])
def test_a_crowd_in_a_small_cache_is_preempted_again_and_again(budget: int) -> None:
    scene = Scene(cache_tokens=60, budget=budget)
    requests = play(scene, CROWD)
    check(scene, CROWD, requests)
    assert sum(request.stats.num_preemptions for request in requests) == scene.engine.load().num_preemptions > 3


def plant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A fault in dealing with those that are preempted."""
    if name == "resumed before all is read":
        read = PromptReader.read

        def early(reader):
            for request in [one for one in reader._scheduler.reading if one.num_output_tokens]:
                reader._target.read(request, reader._target.num_unread(request) - 1)
                yield request, None
            yield from read(reader)

        monkeypatch.setattr(PromptReader, "read", early)
    elif name == "cache kept when preempted":
        preempt = Engine._preempt

        def keeping(engine, request):
            free, engine.target.free = engine.target.free, lambda request: None
            try:
                preempt(engine, request)
            finally:
                engine.target.free = free

        monkeypatch.setattr(Engine, "_preempt", keeping)
    elif name == "law started anew":
        preempt = Engine._preempt

        def forgetting(engine, request):
            preempt(engine, request)
            request.tokens.pop()

        monkeypatch.setattr(Engine, "_preempt", forgetting)
    else:
        raise ValueError(name)


@pytest.mark.parametrize("name", ["resumed before all is read", "cache kept when preempted", "law started anew"])
def test_a_fault_in_preemption_is_found_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant(monkeypatch, name)
    scene = Scene(cache_tokens=60)
    with pytest.raises(AssertionError):
        check(scene, CROWD, play(scene, CROWD))


def test_who_has_the_least_computed_work_is_preempted_and_not_who_came_last() -> None:
    scene = Scene(cache_tokens=59)
    short, long = scene.request(4, 40, 1), scene.request(40, 12, 2)
    for request in (short, long):
        scene.engine.add(request)
    scene.run()
    assert (short.stats.num_preemptions, long.stats.num_preemptions) == (1, 0)
    assert short.finish_reason == long.finish_reason == "length"


def test_nobody_is_preempted_for_a_newcomer() -> None:
    scene = Scene(cache_tokens=50)
    running, newcomer = scene.request(20, 25, 1), scene.request(20, 2, 2)
    scene.engine.add(running)
    for _ in range(4):
        scene.engine.step()
    scene.engine.add(newcomer)
    scene.run()
    assert running.stats.num_preemptions == newcomer.stats.num_preemptions == 0
    assert newcomer.times.admitted is not None
    assert running.times.finished is not None


def test_drafts_give_way_before_anybody_is_preempted() -> None:
    """With three drafts a step there never is room for all; plain decoding just fits."""
    scene = Scene(cache_tokens=44, budget=3)
    requests = [scene.request(10, 12, seed) for seed in (1, 2)]
    for request in requests:
        scene.engine.add(request)
    scene.run()
    assert [request.stats.num_preemptions for request in requests] == [0, 0]
    assert all(request.stats.num_draft_tokens for request in requests)


@pytest.mark.parametrize("cache_tokens", range(21, 24))
def test_a_request_that_fits_the_cache_finishes(cache_tokens: int) -> None:
    scene = Scene(cache_tokens=cache_tokens, budget=5)
    lone = scene.request(11, 10)
    scene.engine.add(lone)
    scene.run()
    assert (lone.finish_reason, lone.stats.num_preemptions) == ("length", 0)


def test_one_that_outgrows_the_cache_fails_in_words_and_the_next_goes_on() -> None:
    scene = Scene(cache_tokens=15)
    large, small = scene.request(11, 10), scene.request(4, 3)
    for request in (large, small):
        scene.engine.add(request)
    scene.run()
    assert isinstance(large.error, EngineError)
    assert "no room for another token" in str(large.error.__cause__)
    assert small.finish_reason == "length"


def gaps(scene: Scene, request: Request, num_steps: int) -> list[float]:
    """Seconds between a request's tokens."""
    at = [scene.clock()]
    for _ in range(num_steps):
        before = len(request.tokens)
        scene.engine.step()
        if len(request.tokens) > before:
            at.append(scene.clock())
    return list(np.diff(at))


def test_a_long_prompt_holds_up_nobodys_next_token_beyond_three_steps() -> None:
    scene = Scene()
    chatting, prompt = scene.request(5, 4000, 1), scene.request(3000, 2, 2)
    scene.engine.add(chatting)
    for _ in range(10):
        scene.engine.step()
    scene.engine.add(prompt)
    waits = gaps(scene, chatting, 180)
    rows = [count for request, count in scene.target.chunks if request is prompt]
    assert max(waits[2:]) <= 3.0 * Timed.step
    assert float(np.median(rows)) >= 24
    assert prompt.finish_reason == "length"


def test_prompts_share_what_is_read_and_the_shortest_rest_comes_first() -> None:
    scene = Scene()
    chatting = scene.request(5, 4000, 1)
    scene.engine.add(chatting)
    scene.engine.step()
    long = [scene.request(900, 1, seed) for seed in (2, 3)]
    for request in long:
        scene.engine.add(request)
    for _ in range(8):
        scene.engine.step()
    read = Counter(request.id for request, _ in scene.target.chunks)
    assert all(read[request.id] >= 2 for request in long)
    short = scene.request(20, 1, 4)
    scene.engine.add(short)
    for _ in range(4):
        scene.engine.step()
    assert short.finish_reason == "length"


def test_a_long_prompt_is_read_although_short_ones_keep_coming() -> None:
    scene = Scene(max_running=8)
    long = scene.request(400, 1, 9)
    scene.engine.add(long)
    for number in range(300):
        scene.engine.add(scene.request(30, 3, number))
        scene.engine.step()
        if long.finish_reason:
            break
    assert long.finish_reason == "length"


def test_while_nobody_decodes_whole_pages_are_read() -> None:
    scene = Scene()
    scene.engine.add(scene.request(200, 3))
    scene.run()
    assert [count for _, count in scene.target.chunks] == [64, 64, 64, 7]


def test_a_prompt_is_read_into_the_cache_for_no_tokens_at_all() -> None:
    scene = Scene()
    request = scene.request(70, 0)
    scene.engine.add(request)
    scene.run()
    assert (request.finish_reason, tokens_of(request), scene.target.num_forwards) == ("length", (), 0)
    assert sum(count for _, count in scene.target.chunks) == 69
    assert request.times.first_token is None
    assert request.times.finished == scene.clock()


def test_a_requests_own_limit_of_drafts_is_kept() -> None:
    scene = Scene(budget=6)
    sizes: list[int] = []
    target = scene.target
    score = target.score
    target.score = lambda work: sizes.extend(len(tree) for _, tree in work) or score(work)
    request = scene.request(5, 20, terms=Terms(num_speculative_tokens=2))
    request.drafters = (ScriptedDrafter.perfect(target),)
    scene.engine.add(request)
    scene.run()
    assert max(sizes) == 2


def test_a_prompts_logits_are_told_once_by_position() -> None:
    scene = Scene()
    told: dict[int, np.ndarray] = {}
    request = scene.request(150, 4)
    request.on_prompt_logits = lambda start, rows: told.update(enumerate(rows, start))
    scene.engine.add(request)
    scene.run()
    assert sorted(told) == list(range(149))
    assert all(np.array_equal(told[i], scene.target.logits(request.tokens[: i + 1])) for i in (0, 63, 64, 148))
    assert request.on_prompt_logits is None


class Watching:
    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def admitted(self, request):
        self.heard.append(("admitted", request.id))

    def preempted(self, request):
        self.heard.append(("preempted", request.id))

    def stepped(self, outcomes, times):
        assert times.drafting <= times.scoring <= times.committing <= times.observing
        self.heard.append(("stepped", len(outcomes)))

    def finished(self, request):
        assert request.times.finished is not None
        self.heard.append(("finished", request.id))


class Raising(Watching):
    def stepped(self, outcomes, times):
        raise OSError("no more disk")


def test_listeners_are_told_in_order_and_one_that_raises_is_left_out() -> None:
    scene = Scene(cache_tokens=59)
    watching, raising = Watching(), Raising()
    scene.engine.listeners += [raising, watching]
    short, long = scene.request(4, 40, 1), scene.request(40, 12, 2)
    for request in (short, long):
        scene.engine.add(request)
    with pytest.warns(UserWarning, match="listener of the engine failed and is left out.*no more disk"):
        scene.run()
    names = [name for name, about in watching.heard if about == short.id and name != "stepped"]
    assert names == ["admitted", "preempted", "admitted", "finished"]
    assert scene.engine.listeners == [watching]
    assert short.times.admitted > short.times.first_token > short.times.arrived


def test_an_engine_says_what_it_is_at() -> None:
    scene = Scene(cache_tokens=400, max_running=2)
    decoding, reading, waiting = scene.request(5, 90, 1), scene.request(300, 4, 2), scene.request(5, 4, 3)
    scene.engine.add(decoding)
    scene.engine.step()
    for request in (reading, waiting):
        scene.engine.add(request)
    waiting.terms = Terms(deadline=scene.clock() + 99)
    scene.engine.step()
    load = scene.engine.load()
    assert (load.num_running, load.num_waiting, load.num_prefilling, load.num_preemptions) == (2, 1, 1, 0)
    assert load.cache_usage == pytest.approx(307 / 400, abs=0.01)
    states = {one.id: one for one in scene.engine.snapshot()}
    assert [states[r.id].state for r in (decoding, reading, waiting)] == ["decode", "prefill", "waiting"]
    assert states[decoding.id].num_output_tokens == 2
    assert 0 < states[reading.id].num_read_tokens < 299
    assert states[waiting.id].deadline_left == pytest.approx(99, abs=9)
    assert states[decoding.id].deadline_left is None


def test_a_chunk_that_fails_ends_its_own_request_alone() -> None:
    scene = Scene(cache_tokens=300)
    good, bad = scene.request(5, 30, 1), scene.request(100, 4, 2)
    scene.engine.add(good)
    scene.engine.step()
    read = scene.target.read

    def failing(request, max_rows):
        if scene.target.num_unread(request) < 60:
            raise MemoryError
        return read(request, max_rows)

    scene.target.read = failing
    scene.engine.add(bad)
    scene.run()
    assert isinstance(bad.error, EngineError)
    assert isinstance(bad.error.__cause__, MemoryError)
    assert good.finish_reason == "length"
    assert scene.target.num_free == 300


def test_a_reservation_that_fails_ends_its_own_request_alone() -> None:
    scene = Scene(cache_tokens=300)
    good, bad = scene.request(5, 30, 1), scene.request(9, 4, 2)
    scene.engine.add(good)
    scene.engine.step()
    scene.target.reserve = lambda request, spare: {}[request.id]
    scene.engine.add(bad)
    scene.run()
    assert isinstance(bad.error, EngineError)
    assert good.finish_reason == "length"


def test_a_step_that_fails_leaves_those_alone_that_are_still_being_read() -> None:
    scene = Scene()
    decoding, reading = scene.request(5, 30, 1), scene.request(400, 4, 2)
    scene.engine.add(decoding)
    scene.engine.step()
    scene.engine.add(reading)
    score, scene.target.score = scene.target.score, lambda work: 1 / 0
    scene.engine.step()
    scene.target.score = score
    scene.run()
    assert isinstance(decoding.error, EngineError)
    assert reading.finish_reason == "length"


def test_the_first_in_the_queue_is_not_overtaken() -> None:
    scheduler = Scheduler(2)
    scene = Scene()
    requests = [scene.request(3, 3, seed) for seed in range(4)]
    for request in requests:
        scheduler.add(request)
    assert list(scheduler.admit(lambda request: True)) == requests[:2]
    scheduler.preempt(requests[0])
    assert scheduler.waiting == [requests[0], *requests[2:]]
    assert list(scheduler.admit(lambda request: request is not requests[0])) == []
    assert list(scheduler.admit(lambda request: True)) == [requests[0]]
