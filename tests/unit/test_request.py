"""`Request.commit`: the one place that appends tokens and knows where an output ends."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.request import Request
from paceline.params import SamplingParams
from paceline.sampling.logprobs import prompt_logprobs
from paceline.sampling.sampler import SampledToken, Sampler, SamplerContext
from paceline.text.stream import TextStream

EOS, OTHER_EOS, STOP_ID = 0, 9, 7
WORDS = ["</s>", "a", "b", "c", "d", "e", "f", "#", "h", "</t>"]


def spelled(ids) -> str:
    return "".join(WORDS[i] for i in ids if i not in (EOS, OTHER_EOS))


def request_of(**sampling) -> Request:
    params = SamplingParams(**{"max_tokens": 100, **sampling})
    eos = frozenset({EOS, OTHER_EOS})
    ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos)
    law = Sampler(params, SamplerContext(len(WORDS), eos), [1, 2], seed=0)
    return Request([1, 2], law, TextStream(spelled, [1, 2], params.stop, params.include_stop_str_in_output), ends)


def commit(request: Request, *ids: int):
    """One step whose choices are `ids`, all but the last of them drafted."""
    choices = [SampledToken(i, -0.25 * i, 0.5, ((i, -0.25 * i),)) for i in ids]
    return request.commit(choices, [*["drafter"] * (len(ids) - 1), "target"])


CASES = {
    "nothing ends it": ({}, [3, 4, 5], [3, 4, 5], None, "cde"),
    "EOS in the middle": ({}, [3, EOS, 4, 5], [3, EOS], "stop", "c"),
    "another EOS": ({}, [3, OTHER_EOS, 4], [3, OTHER_EOS], "stop", "c"),
    "EOS first": ({}, [EOS, 4, 5], [EOS], "stop", ""),
    "EOS last": ({}, [3, 4, EOS], [3, 4, EOS], "stop", "cd"),
    "EOS ignored": ({"ignore_eos": True}, [3, EOS, 4, OTHER_EOS], [3, EOS, 4, OTHER_EOS], None, "cd"),
    "a stop token": ({"stop_token_ids": [STOP_ID]}, [3, STOP_ID, 4], [3, STOP_ID], "stop", "c#"),
    "a stop token with EOS ignored": (
        {"stop_token_ids": [STOP_ID], "ignore_eos": True},
        [EOS, STOP_ID, 4],
        [EOS, STOP_ID],
        "stop",
        "#",
    ),
    "EOS named as a stop token though ignored": (
        {"stop_token_ids": [EOS], "ignore_eos": True},
        [3, EOS, 4],
        [3, EOS],
        "stop",
        "c",
    ),
    "the limit in the middle": ({"max_tokens": 2}, [3, 4, 5, 6], [3, 4], "length", "cd"),
    "the limit at the end": ({"max_tokens": 3}, [3, 4, 5], [3, 4, 5], "length", "cde"),
    "EOS at the limit": ({"max_tokens": 2}, [3, EOS, 5], [3, EOS], "stop", "c"),
    "EOS beyond the limit": ({"max_tokens": 2}, [3, 4, EOS], [3, 4], "length", "cd"),
    "a stop string keeps its tokens": ({"stop": "de"}, [3, 4, 5, 6], [3, 4, 5], "stop", "c"),
    "a stop string at the limit": ({"stop": "de", "max_tokens": 3}, [3, 4, 5, 6], [3, 4, 5], "stop", "c"),
    "half a stop string at the limit": ({"stop": "de", "max_tokens": 2}, [3, 4, 5], [3, 4], "length", "cd"),
    "half a stop string and EOS": ({"stop": "de"}, [3, 4, EOS, 5], [3, 4, EOS], "stop", "cd"),
    "a stop string before min_tokens": ({"stop": "de", "min_tokens": 3}, [4, 5, 6], [4, 5, 6], None, "def"),
    "a stop string with the last of min_tokens": ({"stop": "de", "min_tokens": 2}, [4, 5], [4, 5], None, "de"),
    "a stop string after min_tokens": (
        {"stop": "de", "min_tokens": 3},
        [4, 5, 4, 5, 6],
        [4, 5, 4, 5],
        "stop",
        "de",
    ),
}

REASONS = {
    "nothing ends it": ({"stop": "x"}, [3, 4, 5], None),
    "EOS": ({}, [3, EOS], None),
    "a limit": ({"max_tokens": 2, "stop_token_ids": [STOP_ID]}, [3, 4, STOP_ID], None),
    "a stop token": ({"stop_token_ids": [3, STOP_ID]}, [4, STOP_ID], STOP_ID),
    "EOS named as a stop token": ({"stop_token_ids": [EOS], "ignore_eos": True}, [4, EOS], EOS),
    "a stop string": ({"stop": ["x", "de"]}, [3, 4, 5], "de"),
    "the stop string that begins first": ({"stop": ["e", "cde"]}, [3, 4, 5], "cde"),
    "the first of two that begin together": ({"stop": ["d", "de"]}, [3, 4, 5], "d"),
    "a stop token that completes a stop string": ({"stop": "d#", "stop_token_ids": [STOP_ID]}, [4, STOP_ID], "d#"),
    "half a stop string and a stop token": ({"stop": "d#x", "stop_token_ids": [STOP_ID]}, [4, STOP_ID], STOP_ID),
    "a stop string kept": ({"stop": "de", "include_stop_str_in_output": True}, [3, 4, 5, 6], "de"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_ended_a_request_is_told_by_its_stop_string_or_token(name: str) -> None:
    sampling, ids, reason = REASONS[name]
    for steps in ([ids], [[token] for token in ids]):
        request = request_of(**sampling)
        for step in steps:
            if request.finish_reason is None:
                commit(request, *step)
        assert request.stop_reason == reason
        assert reason is None or request.finish_reason == "stop"


def test_a_stop_string_that_is_kept_ends_the_text_that_it_is_in() -> None:
    request = request_of(stop="de", include_stop_str_in_output=True)
    emitted = commit(request, 3, 4, 5, 6)
    assert [token.text for token in emitted] == ["c", "d", "e"]
    assert (request.text, request.finish_reason) == ("cde", "stop")


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(WORDS))).astype(np.float32)


def reading(prompt: list[int], num_top: int) -> Request:
    params = SamplingParams(max_tokens=5, prompt_logprobs=num_top)
    law = Sampler(params, SamplerContext(len(WORDS)), prompt, seed=0)
    return Request(prompt, law, TextStream(spelled, prompt, ()), frozenset())


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(1, 40), max_size=9), st.integers(0, 5)
)
def test_prompt_logprobs_do_not_depend_on_the_chunks_that_the_prompt_is_read_in(prompt, at, num_top) -> None:
    rows = rows_of(len(prompt) + 3)
    whole, parts = reading(prompt, num_top), reading(prompt, num_top)
    whole.on_prompt_logits(0, rows[: len(prompt) - 1])
    ends = sorted({place % (len(prompt) + 3) for place in at} | {0, len(prompt) + 3})
    for start, end in itertools.pairwise(ends):
        parts.on_prompt_logits(start, rows[start:end])  # and behind the prompt, as after a preemption
    again = ends[len(ends) // 2]
    parts.on_prompt_logits(again, rows[again:])
    assert parts.prompt_logprobs == whole.prompt_logprobs
    assert [entry is None for entry in whole.prompt_logprobs] == [True] + [False] * (len(prompt) - 1)
    for place in range(1, len(prompt)):
        assert [whole.prompt_logprobs[place]] == prompt_logprobs(rows[place - 1 : place], [prompt[place]], num_top)


def test_nobody_is_told_of_a_prompt_that_nobody_asked_about() -> None:
    assert request_of().on_prompt_logits is None
    assert request_of().prompt_logprobs is None


@pytest.mark.parametrize("name", CASES)
def test_commit(name: str) -> None:
    sampling, ids, kept, reason, text = CASES[name]
    request = request_of(**sampling)
    emitted = commit(request, *ids)
    assert [token.id for token in emitted] == kept
    assert request.tokens == [1, 2, *kept]
    assert request.finish_reason == reason
    assert request.text == text == "".join(token.text for token in emitted)
    assert list(request.outbox) == list(emitted)


@pytest.mark.parametrize("name", CASES)
def test_commit_in_steps_of_one_token_is_the_same(name: str) -> None:
    sampling, ids, kept, reason, text = CASES[name]
    request = request_of(**sampling)
    for token in ids:
        if request.finish_reason is None:
            commit(request, token)
    assert request.tokens == [1, 2, *kept]
    assert (request.finish_reason, request.text) == (reason, text)


def test_emitted_tokens_carry_their_source_and_what_the_model_thought() -> None:
    first, last = commit(request_of(), 3, 4)
    assert (first.source, last.source) == ("drafter", "target")
    assert (first.logprob, first.entropy, first.top) == (-0.75, 0.5, ((3, -0.75),))


def test_counts_of_tokens() -> None:
    request = request_of(max_tokens=9)
    assert (request.num_prompt_tokens, request.num_output_tokens, request.num_remaining) == (2, 0, 9)
    commit(request, 3, 4, 5, 6)
    assert (request.num_prompt_tokens, request.num_output_tokens, request.num_remaining) == (2, 4, 5)


def test_the_outbox_is_complete_before_the_request_is_seen_to_have_ended() -> None:
    class Watched(deque):
        def extend(self, tokens):
            assert request.finish_reason is None
            super().extend(tokens)

    request = request_of(max_tokens=3)
    request.outbox = Watched()
    commit(request, 3, 4, 5, 6)
    assert (len(request.outbox), request.finish_reason) == (3, "length")


def test_requests_have_different_ids() -> None:
    assert len({request_of().id for _ in range(5)}) == 5
