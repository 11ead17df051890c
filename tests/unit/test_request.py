"""`Request.commit`: the one place that appends tokens and knows where an output ends."""

from __future__ import annotations

from collections import deque

import pytest

from paceline.engine.request import Request
from paceline.params import SamplingParams
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
    return Request([1, 2], law, TextStream(spelled, [1, 2], params.stop), ends)


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
