"""Requests that come at any time to a cache too small for them are read by parts, preempted, resumed: bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from unittest.mock import patch

import numpy as np
import pytest

from exactness.decoding import Job, RandomTrees, Recorder, Trace
from exactness.subjects import Subject, job
from exactness.test_parting_prefixes import load_with
from paceline.engine.engine import Engine
from paceline.engine.rates import Rates
from paceline.engine.request import Request
from paceline.model import reading
from paceline.model.prefix import PrefixCache
from paceline.pacing import FixedPacer

PAGES = 6


@pytest.fixture(scope="module", params=["native", "modules"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Llama with so few pages left that about two of the requests below fit."""
    loaded = load_with("" if request.param == "native" else "0", "llama", cache_tokens=960)
    assert loaded.pool.reserve(960 - 64 * PAGES) is not None
    yield loaded
    loaded.llm.close()


def jobs_of(seed: int, count: int, temperature: float) -> list[Job]:
    """Of several lengths; most begin as another one does."""
    rng = np.random.default_rng(seed)
    found: list[Job] = []
    for index in range(count):
        own = job(int(rng.integers(1, 80)), 100 * seed + index).prompt
        start = found[int(rng.integers(len(found)))].prompt if found and index % 3 else ()
        prompt = (*start[: int(rng.integers(len(start) + 1))], *own)[-140:]
        options = {"max_tokens": int(rng.integers(70, 110)), "temperature": temperature}
        found.append(Job(prompt, options, 100 * seed + index))
    return found


class Played:
    """What came of jobs that arrived one after the other."""

    def __init__(self, subject: Subject, jobs: Sequence[Job], seed: int, budget: int, num_cancelled: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drafter = RandomTrees(subject.plain, jobs, seed)
        self.recorder = Recorder(subject.target)
        self.engine = Engine(self.recorder, FixedPacer(budget))
        self.requests = [one.request(subject.target, [drafter] if budget else []) for one in jobs]
        arrivals = sorted(int(step) for step in rng.integers(0, 20, len(jobs)))
        cancelled = {int(i): int(rng.integers(20, 60)) for i in rng.permutation(len(jobs))[:num_cancelled]}
        self._run(arrivals, cancelled)

    def _run(self, arrivals: Sequence[int], cancelled: dict[int, int]) -> None:
        for number in range(3000):
            for index, (arrival, request) in enumerate(zip(arrivals, self.requests, strict=True)):
                if arrival == number:
                    self.engine.add(request)
                if cancelled.get(index) == number:
                    request.cancel()
            self.engine.step()
            if number > 60 and self.engine.scheduler.is_idle:
                return
        raise AssertionError("somebody starves")

    def differences(self, subject: Subject, jobs: Sequence[Job]) -> list[str]:
        """What is not as in plain decoding, of those that were not cancelled; a failure is raised."""
        for request in self.requests:
            if request.error is not None:
                raise request.error.__cause__ or request.error
        whole = [pair for pair in zip(jobs, self.requests, strict=True) if pair[1].finish_reason == "length"]
        traces = [self.recorder.traces.get(request.id, Trace()) for _, request in whole]
        return subject.plain.differences([one for one, _ in whole], traces)

    @property
    def num_preemptions(self) -> int:
        return self.engine.load().num_preemptions


@pytest.mark.parametrize("caching", ["cached", "uncached"])
@pytest.mark.parametrize(("temperature", "budget"), [(0.0, 0), (1.0, 5)])
def test_whoever_comes_and_goes_has_the_bits_of_plain_decoding(
    subject: Subject, temperature: float, budget: int, caching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if caching == "uncached":
        monkeypatch.setattr(PrefixCache, "known", lambda own, before, part: None)
        monkeypatch.setattr(PrefixCache, "begun", lambda own, before, tokens: (0, 0))
    num_preemptions = 0
    for seed in range(5, 8 if subject.decoder.is_exact_by_construction else 6):
        jobs = jobs_of(seed, 6, temperature)
        played = Played(subject, jobs, seed, budget, num_cancelled=1)
        assert played.differences(subject, jobs) == []
        assert subject.pool.num_free_tokens == 64 * PAGES
        assert caching == "cached" or not any(r.stats.num_cached_tokens for r in played.requests)
        num_preemptions += played.num_preemptions
    assert num_preemptions >= 2


@pytest.mark.parametrize("rows", [8, 24])
def test_chunks_of_any_size_have_the_bits_of_whole_pages(subject: Subject, rows: int) -> None:
    """Where a page's bits depend on its chunk, it is read whole all the same."""
    jobs = jobs_of(5, 6, 1.0)
    with patch.object(Rates, "rows_beside_a_step", lambda rates: rows):
        played = Played(subject, jobs, 2, 4)
    assert played.differences(subject, jobs) == []


def test_what_was_decoded_is_not_read_again_as_a_prompt_where_that_has_other_bits(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that `RequestCache` guards against, planted."""
    if subject.decoder.is_exact_by_construction:
        pytest.skip("the native kernels give both the same bits")
    jobs = jobs_of(5, 6, 0.0)
    monkeypatch.setattr(reading, "_readable", lambda decoder, request: len(request.tokens) - 1)
    played = Played(subject, jobs, 0, 0)
    assert played.num_preemptions > 0
    assert played.differences(subject, jobs) != []


def test_prompts_that_are_read_at_the_same_time_share_their_pages(subject: Subject) -> None:
    """The second looks again when its turn comes."""
    prompt = job(110, 77).prompt
    jobs = [Job((*prompt, *job(5, i).prompt), {"max_tokens": 4}, i) for i in range(2)]
    engine = Engine(Recorder(subject.target), FixedPacer(0))
    requests = [one.request(subject.target) for one in jobs]
    for request in requests:
        engine.add(request)
    engine.step()
    assert engine.load().num_prefilling == 2
    while not engine.scheduler.is_idle:
        engine.step()
    assert sum(request.stats.num_cached_tokens for request in requests) == 64
    assert subject.pool.num_free_tokens == 64 * PAGES


def prompt_logits(subject: Subject, one: Job) -> tuple[Request, np.ndarray]:
    told: dict[int, np.ndarray] = {}
    request = one.request(subject.target)
    request.on_prompt_logits = lambda start, rows: told.update(enumerate(rows, start))
    recorder = Recorder(subject.target)
    engine = Engine(recorder, FixedPacer(0))
    engine.add(request)
    while not engine.scheduler.is_idle:
        engine.step()
    assert subject.plain.differences([one], [recorder.traces[request.id]]) == []
    return request, np.stack([told[i] for i in range(len(one.prompt) - 1)])


def test_a_prompts_logits_are_the_models_and_leave_its_cache_as_it_is(subject: Subject) -> None:
    one = job(150, 31, 9)
    assert subject.plain[one].tokens
    request, logits = prompt_logits(subject, one)
    assert request.stats.num_cached_tokens == 0  # though it is known
    own = subject.own_logits(list(one.prompt))[:-1]
    np.testing.assert_allclose(logits, own, atol=2e-4)
    assert logits.dtype == np.float32
    _, again = prompt_logits(subject, one)
    assert again.tobytes() == logits.tobytes()


def test_max_tokens_set_no_cache_aside(subject: Subject) -> None:
    """Each of these could fill most of the cache, and does not."""
    stops = {"stop_token_ids": tuple(range(200)), "min_tokens": 5, "max_tokens": 500}
    jobs = [job(20, i, **stops) for i in range(PAGES - 1)]
    engine = Engine(Recorder(subject.target), FixedPacer(0))
    requests = [one.request(subject.target) for one in jobs]
    for request in requests:
        engine.add(request)
    engine.step()
    assert engine.load().num_running == PAGES - 1
    while not engine.scheduler.is_idle:
        engine.step()
    assert all(request.finish_reason == "stop" for request in requests)
