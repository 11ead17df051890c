"""A prompt that is found in the prefix cache gives the bits of one that is read; tenants share nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import paceline
from exactness.conftest import Subjects
from exactness.decoding import Job, RandomTrees, decode
from exactness.subjects import Subject, job
from paceline import EngineError
from paceline.model.prefix import LEAST_BEGUN, PrefixCache

ARCHITECTURES = ["llama", "gemma2", "mistral", "gpt2"]


def prompt_of(seed: int, length: int) -> list[int]:
    return list(job(length, seed).prompt)


def cached(output: paceline.Output) -> int:
    return int(output.stats.num_cached_tokens)


def known(llm: paceline.LLM, positions: int) -> int:
    """How many of so many positions are found: all, or where bits depend on chunks whole pages of a prompt."""
    is_found = llm.target.decoder.is_exact_by_construction and positions % 64 >= LEAST_BEGUN
    return positions if is_found else positions // 64 * 64


def bits(output: paceline.Output) -> list[Any]:
    return [(token.id, token.logprob, token.logit) for token in output.tokens]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_hit_changes_no_bit(subjects: Subjects, architecture: str, dtype: torch.dtype):
    """Decoded twice over; in the second round all of the prompts is found, or every whole page of them."""
    subject = subjects(architecture, dtype)
    jobs = [job(length, 1, 9, temperature=length % 2) for length in (65, 129, 150, 200)]
    drafter = RandomTrees(subject.plain, jobs, fill=True)
    for _ in range(2):
        assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter)) == []
    again = subject.llm.generate(list(jobs[2].prompt), max_tokens=3)
    assert cached(again) == known(subject.llm, 149)


@pytest.mark.parametrize("length", [1, 8, 9, 64, 65, 72, 73, 128, 129, 203])
def test_all_but_the_last_token_of_a_prompt_may_be_found(subjects: Subjects, length: int):
    llm = subjects("llama").llm
    first, second = (llm.generate(prompt_of(7, length), max_tokens=4, tenant=f"{length}") for _ in range(2))
    assert (cached(first), cached(second)) == (0, known(llm, length - 1))
    assert bits(first) == bits(second)


def test_prompts_that_part_share_what_comes_before(subjects: Subjects):
    llm = subjects("llama").llm
    one = prompt_of(3, 200)
    other = [*one[:100], *prompt_of(4, 80)]
    cold = llm.generate(other, max_tokens=12, tenant="cold")
    llm.generate(one, max_tokens=4, tenant="warm")
    warm = llm.generate(other, max_tokens=12, tenant="warm")
    assert (cached(cold), cached(warm)) == (0, known(llm, 100))
    assert bits(cold) == bits(warm)


def test_a_position_too_many_is_found_out(subjects: Subjects, monkeypatch: pytest.MonkeyPatch):
    """A fault planted: where prompts part within a page, the other one's next position is taken over too."""
    subject = subjects("llama")
    if not subject.decoder.is_exact_by_construction:
        pytest.skip("whole pages alone are found")
    one, begun = job(120, 41), PrefixCache.begun
    other = Job((*one.prompt[:90], *job(9, 42).prompt), {"max_tokens": 6}, 1)

    def differ() -> list[Any]:
        subject.pool.forget_prefixes()
        assert subject.plain.differences([one], decode(subject.target, [one])) == []
        return subject.plain.differences([other], decode(subject.target, [other]))

    assert differ() == []
    monkeypatch.setattr(
        PrefixCache, "begun", lambda *given: tuple(n + bool(n) * i for i, n in enumerate(begun(*given)))
    )
    assert differ() != []


def test_samples_of_a_prompt_read_it_once(subjects: Subjects):
    llm = subjects("llama").llm
    samples = llm.generate([prompt_of(5, 140)], n=3, max_tokens=5, temperature=1.0, seed=1, tenant="samples")
    assert sum(map(cached, samples)) == 2 * 128  # by turns: whose turn it is depends on what was read before
    apart = llm.generate([prompt_of(5, 140)], n=3, max_tokens=5, temperature=1.0, seed=1, tenant="others")
    assert [bits(a) for a in samples] == [bits(b) for b in apart]


def test_another_tenant_finds_nothing(subjects: Subjects):
    llm = subjects("llama").llm
    for tenant in ("mine", "theirs"):
        assert cached(llm.generate(prompt_of(6, 140), max_tokens=2, tenant=tenant)) == 0
    assert cached(llm.generate(prompt_of(6, 140), max_tokens=2, tenant="mine")) == known(llm, 139)


def test_a_conversation_goes_on_where_it_was(subjects: Subjects):
    """What was decoded is found too where it has the bits of what is prefilled, and only there."""
    llm = subjects("llama").llm
    first = llm.generate(prompt_of(8, 30), max_tokens=120, ignore_eos=True, tenant="chat")
    longer = [*prompt_of(8, 30), *first.token_ids, *prompt_of(9, 20)]
    warm, cold = (llm.generate(longer, max_tokens=9, tenant=tenant) for tenant in ("chat", "new"))
    is_native = llm.target.decoder.is_exact_by_construction
    assert cached(warm) == (148 if is_native else 0)  # what the last step found was not committed
    assert bits(warm) == bits(cold)


@pytest.fixture(scope="module")
def small() -> Subject:
    """A model whose pool holds 15 pages."""
    return Subject("llama", cache_tokens=960, max_position_embeddings=2048)


def test_what_is_kept_makes_room_for_what_is_asked(small: Subject):
    """More prompts than the pool could keep, in turns: some are found, some have been given up, no bit differs."""
    jobs = [job(150 + 20 * i, i, 6) for i in range(6)]
    found = []
    for one in (*jobs, *jobs[::-1], *jobs):
        assert small.plain.differences([one], decode(small.target, [one])) == []
        found.append(cached(small.llm.generate(list(one.prompt), max_tokens=2)))
    assert small.pool.num_free_tokens == 960
    assert any(found)
    assert len(small.pool.prefixes) <= 15


def test_a_prefill_that_fails_offers_only_what_it_has_read(small: Subject):
    """The second chunk fails: what is found afterwards is right."""
    calls = iter([None, RuntimeError("no more")])

    def fail(count: int) -> None:
        error = next(calls)
        if error is not None:
            raise error

    prompt = prompt_of(20, 260)
    small.llm.on_prefill(fail)
    with pytest.raises(EngineError, match="no more"):
        small.llm.generate(prompt, max_tokens=5, tenant="interrupted")
    small.llm.on_prefill(None)
    warm, cold = (small.llm.generate(prompt, max_tokens=9, tenant=tenant) for tenant in ("interrupted", "new"))
    assert cached(warm) <= 128
    assert bits(warm) == bits(cold)


def test_progress_counts_what_was_found(small: Subject):
    prompt = prompt_of(21, 200)
    small.llm.generate(prompt, max_tokens=2)
    told: list[int] = []
    small.llm.on_prefill(told.append)
    small.llm.generate(prompt, max_tokens=2)
    small.llm.on_prefill(None)
    found = known(small.llm, 199)
    assert told == [found, 199 - found][: 2 if found < 199 else 1]
