"""What the model thought of a prompt: transformers' own, and the same bits however and beside whom it is read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from exactness.conftest import Subjects
from exactness.subjects import Subject, job
from paceline.engine.request import NO_HINTS, Hints
from paceline.options import Call
from paceline.params import SamplingParams
from paceline.sampling.logprobs import PromptLogprob

LENGTHS = (1, 2, 63, 64, 65, 66, 129, 200)
DTYPES = [torch.float32, torch.bfloat16]
NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.6}  # of logits of some tens, of a random model with large weights
Thoughts = list[PromptLogprob | None]


def prompt_of(length: int, seed: int = 5) -> list[int]:
    return list(job(length, seed).prompt)


def read(subject: Subject, prompt: list[int], chunks: Iterable[int], hints: Hints = NO_HINTS) -> Thoughts:
    """A prompt read by the target alone, at most so many rows at a time, the numbers again and again."""
    call = Call(SamplingParams(max_tokens=3, prompt_logprobs=4))
    [request] = subject.llm.runtime.factory.requests(prompt, call, [], hints)
    assert subject.target.reserve(request, 0)
    numbers = iter(chunks)
    while subject.target.num_unread(request):
        subject.target.read(request, next(numbers))
    subject.target.free(request)
    return request.prompt_logprobs


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_prompt_logprobs_are_those_of_transformers(subjects: Subjects, architecture: str, dtype: torch.dtype):
    subject, near = subjects(architecture, dtype), NEAR[dtype]
    for length in (2, 65, 130):
        prompt = prompt_of(length)
        found = subject.llm.generate(prompt, max_tokens=0, prompt_logprobs=5).prompt_logprobs
        expected = torch.log_softmax(torch.tensor(subject.own_logits(prompt), dtype=torch.float64), 1).numpy()
        assert len(found) == length
        assert found[0] is None
        for place, entry in enumerate(found[1:]):
            row, token = expected[place], prompt[place + 1]
            assert entry.logprob == pytest.approx(row[token], abs=near)
            assert (row > row[token] + 2 * near).sum() < entry.rank <= (row >= row[token] - 2 * near).sum()
            assert [p for _, p in entry.top] == pytest.approx(np.sort(row)[::-1][:5], abs=near)
            assert [row[t] for t, _ in entry.top] == pytest.approx([p for _, p in entry.top], abs=near)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_they_have_the_same_bits_however_the_prompt_is_read(subjects: Subjects, architecture: str, dtype: torch.dtype):
    subject = subjects(architecture, dtype)
    llm, how = subject.llm, {"max_tokens": 2, "prompt_logprobs": 4}
    prompts = [prompt_of(length) for length in LENGTHS]
    alone = [llm.generate(prompt, **how, tenant=f"alone {len(prompt)}") for prompt in prompts]
    together = llm.generate(prompts, **how, tenant="together")
    warm = llm.generate(prompts, **how, tenant="together", temperature=1.0, seed=3, allowed_token_ids=[1, 2])
    rng = np.random.default_rng(2)
    for place, prompt in enumerate(prompts):
        expected = alone[place].prompt_logprobs
        assert together[place].prompt_logprobs == warm[place].prompt_logprobs == expected
        assert warm[place].stats.num_cached_tokens == 0  # what is known of the prompt is read all the same
        for chunks in ([64] * 9, rng.integers(1, 40, 300).tolist()):
            assert tuple(read(subject, prompt, chunks)) == expected
        plain = llm.generate(prompt, max_tokens=2, tenant=f"plain {len(prompt)}")
        assert plain.prompt_logprobs is None
        assert [(t.id, t.logprob) for t in plain.tokens] == [(t.id, t.logprob) for t in alone[place].tokens]


def test_they_have_the_same_bits_while_others_decode(subjects: Subjects):
    llm, prompt = subjects("llama").llm, prompt_of(200, seed=8)
    expected = llm.generate(prompt, max_tokens=1, prompt_logprobs=3).prompt_logprobs
    with llm.stream(prompt_of(9), max_tokens=400, ignore_eos=True, tenant="other") as other:
        next(other)
        for _ in range(3):
            assert llm.generate(prompt, max_tokens=1, prompt_logprobs=3).prompt_logprobs == expected


def test_a_prompt_is_read_into_the_prefix_cache_where_nothing_is_decoded(subjects: Subjects):
    llm, prompt = subjects("llama").llm, prompt_of(209, seed=9)
    free = llm.target.cache_usage
    warmed = llm.generate([prompt, prompt[:70]], max_tokens=0, tenant="warmed")
    assert [(out.token_ids, out.finish_reason, out.stop_reason) for out in warmed] == [((), "length", None)] * 2
    assert list(llm.stream(prompt, max_tokens=0, tenant="warmed")) == []
    assert llm.target.cache_usage == free
    cold, warm = (llm.generate(prompt, max_tokens=9, tenant=name) for name in ("cold", "warmed"))
    known = 208 if llm.target.decoder.is_exact_by_construction else 192
    assert (cold.stats.num_cached_tokens, warm.stats.num_cached_tokens) == (0, known)
    assert [(t.id, t.logprob) for t in cold.tokens] == [(t.id, t.logprob) for t in warm.tokens]
