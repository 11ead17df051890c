"""Fields that vLLM's and lm-eval's users send, each against what `generate` gives offline."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from paceline import LLM, Output
from paceline.server import create_app

from .asking import Answer, ask
from .conftest import settings_for_tests
from .running import running

TEXT = "Once upon a time there was a small dog. The dog"
PLAIN = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


def complete(url: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    return ask(url, "/v1/completions", {"prompt": TEXT, **PLAIN, **fields}, headers=headers)


def offline(bundled: LLM, prompt: Any = TEXT, **options: Any) -> Output:
    return bundled.generate(prompt, drafters="none", **{**PLAIN, **options})


def chunks_of(answer: Answer) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as it should."""
    assert answer.status == 200
    lines = [line for line in answer.body.decode().split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


# (what is sent, the options of `generate` that mean the same)
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"stop": ["the"]}, {}),
    ({"stop": ["the"], "include_stop_str_in_output": True}, {}),
    ({"allowed_token_ids": [5, 6, 70, 300]}, {}),
    ({"truncate_prompt_tokens": 4}, {}),
    ({"truncate_prompt_tokens": 10**6}, {}),
    ({"add_special_tokens": False}, {}),
    ({"allowed_token_ids": [0, 1, 2], "skip_special_tokens": False}, {}),
    ({"allowed_token_ids": [0, 1, 2], "skip_special_tokens": True}, {}),
    ({"speculation": {"drafters": "auto", "num_speculative_tokens": 2}}, {"num_speculative_tokens": 2}),
    ({"stop_token_ids": [13, 200]}, {}),
]


@pytest.mark.parametrize(("fields", "options"), SAME, ids=[next(reversed(row[0])) for row in SAME])
def test_a_field_means_what_the_option_does(
    url: str, bundled: LLM, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    meant = options or fields
    expected = offline(bundled, **meant)
    answer = complete(url, **fields, return_token_ids=True)
    assert answer.status == 200, answer.body
    assert answer.headers.get("x-paceline-ignored-fields") is None
    choice = answer.json["choices"][0]
    told = (choice["text"], choice["token_ids"], choice["finish_reason"], choice["stop_reason"])
    assert told == (expected.text, list(expected.token_ids), expected.finish_reason, expected.stop_reason)


def test_a_limit_on_drafts_is_kept(url: str) -> None:
    answer = complete(url, max_tokens=40, speculation={"num_speculative_tokens": 1}, return_token_details=True)
    steps = answer.json["choices"][0]["steps"]
    assert max(len(step["tokens"]) for step in steps) <= 1
    refused = complete(url, speculation={"num_speculative_tokens": -1})
    assert (refused.status, refused.error["param"]) == (400, "speculation.num_speculative_tokens")


def test_special_tokens_of_a_chat_are_its_templates(url: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], **PLAIN}
    assert ask(url, "/v1/chat/completions", {**body, "add_special_tokens": False}).status == 200
    refused = ask(url, "/v1/chat/completions", {**body, "add_special_tokens": True})
    assert (refused.status, refused.error["param"]) == (400, "add_special_tokens")


def test_a_priority_is_refused_where_it_would_mean_something(url: str) -> None:
    assert complete(url, priority=0).status == 200
    refused = complete(url, priority=-1)
    assert (refused.status, refused.error["param"]) == (400, "priority")


def test_options_of_a_stream_belong_to_a_stream_and_cost_nothing_where_they_are_refused(bundled: LLM) -> None:
    app = create_app(bundled, settings_for_tests())
    with running(app) as url:
        for path, prompt in (
            ("/v1/completions", {"prompt": "Once"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ):
            refused = ask(url, path, {**prompt, **PLAIN, "stream_options": {"include_usage": True}})
            assert (refused.status, refused.error["param"]) == (400, "stream_options")
    assert (app.state.service.admission.num_open, app.state.service.admission.num_prompt_tokens) == (0, 0)


# Echo, as lm-eval asks for it


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("logprobs", [None, 1, 3])
def test_echo_puts_the_prompt_first(url: str, bundled: LLM, max_tokens: int, logprobs: int | None) -> None:
    expected = offline(bundled, max_tokens=max_tokens, logprobs=logprobs, prompt_logprobs=logprobs)
    choice = complete(url, echo=True, logprobs=logprobs, max_tokens=max_tokens).json["choices"][0]
    assert choice["text"] == TEXT + expected.text
    if logprobs is None:
        assert choice["logprobs"] is None
        return
    check_echoed(bundled, choice, expected, logprobs)


def check_echoed(bundled: LLM, choice: dict[str, Any], expected: Output, num_top: int) -> None:
    told, thoughts = choice["logprobs"], expected.prompt_logprobs
    assert thoughts is not None
    ids = [*expected.origin.prompt_token_ids, *expected.token_ids]
    assert bundled.tokenizer is not None
    assert told["tokens"] == [bundled.tokenizer.decode([one]) for one in ids]
    own = [None, *(one.logprob for one in thoughts[1:] if one), *(token.logprob for token in expected.tokens)]
    assert told["token_logprobs"] == own
    assert told["top_logprobs"][0] is None
    for top, logprob in zip(told["top_logprobs"][1:], own[1:], strict=True):
        assert num_top <= len(top) <= num_top + 1
        assert logprob in top.values()
    starts = [*told["text_offset"], len(choice["text"])]
    pieces = [choice["text"][start:end] for start, end in itertools.pairwise(starts)]
    assert pieces == told["tokens"]  # TEXT is ASCII: every token is some characters


def test_lm_eval_reads_its_score(url: str, bundled: LLM) -> None:
    """As lm_eval's `TemplateAPI.parse_logprobs` does: the continuation's tokens, and whether all were the likeliest."""
    assert bundled.tokenizer is not None
    context, continuation = bundled.tokenizer.encode(TEXT), bundled.tokenizer.encode(" was happy.")
    body = {"max_tokens": 1, "temperature": 0, "logprobs": 1, "seed": 1234, "echo": True}
    answer = ask(url, "/v1/completions", {"prompt": [[*context, *continuation], continuation], **body})
    for choice, start in zip(answer.json["choices"], (len(context), 1), strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][start:-1]
        tops = choice["logprobs"]["top_logprobs"][start:-1]
        prompt = [[*context, *continuation], continuation][choice["index"]]
        expected = offline(bundled, prompt, max_tokens=0, prompt_logprobs=1).prompt_logprobs
        assert expected is not None
        assert math.isclose(sum(logprobs), sum(one.logprob for one in expected[start:] if one))
        is_greedy = all(max(top.values()) == one for top, one in zip(tops, logprobs, strict=True))
        assert is_greedy == all(one.rank == 1 for one in expected[start:] if one)


def test_echo_of_several_prompts_and_samples_streams_too(url: str) -> None:
    fields = {"prompt": ["Once upon", "Zwölf süße Füße 🦊"], "n": 2, "echo": True, "logprobs": 2}
    whole = complete(url, **fields, temperature=1, seed=3).json["choices"]
    told: dict[int, dict[str, Any]] = {}
    for chunk in chunks_of(complete(url, **fields, temperature=1, seed=3, stream=True)):
        [choice] = chunk["choices"]
        one = told.setdefault(choice["index"], {"text": "", "tokens": [], "text_offset": [], "token_logprobs": []})
        one["text"] += choice["text"]
        for name in ("tokens", "text_offset", "token_logprobs"):
            one[name] += (choice["logprobs"] or {}).get(name, [])
    for choice in whole:
        own = {name: choice["logprobs"][name] for name in ("tokens", "text_offset", "token_logprobs")}
        assert told[choice["index"]] == {"text": choice["text"], **own}
        assert choice["text"].startswith(fields["prompt"][choice["index"] // 2])
    assert len(whole) == len(told) == 4


def test_echo_of_a_prompt_that_was_cut_is_what_was_read(url: str, bundled: LLM) -> None:
    expected = offline(bundled, truncate_prompt_tokens=3)
    assert bundled.tokenizer is not None
    read = bundled.tokenizer.decode(expected.origin.prompt_token_ids)
    assert complete(url, echo=True, truncate_prompt_tokens=3).text == read + expected.text
    refused = complete(url, echo=True, logprobs=21)
    assert (refused.status, refused.error["param"]) == (400, "logprobs")


@pytest.mark.parametrize("count", [0, 2])
def test_prompt_logprobs(url: str, bundled: LLM, count: int) -> None:
    thoughts = offline(bundled, max_tokens=1, prompt_logprobs=count).prompt_logprobs
    answer = complete(url, max_tokens=1, prompt_logprobs=count).json["choices"][0]
    check_prompt_logprobs(answer["prompt_logprobs"], thoughts, count)
    assert complete(url, prompt_logprobs=count, stream=True).error["param"] == "prompt_logprobs"


def check_prompt_logprobs(told: list[Any], thoughts: Any, count: int) -> None:
    assert told[0] is None
    for entry, thought in zip(told[1:], thoughts[1:], strict=True):
        own, *others = entry.values()
        assert (own["logprob"], own["rank"]) == (thought.logprob, thought.rank)
        assert set(own) == {"logprob", "rank", "decoded_token"}
        assert {int(one) for one in entry} >= {one for one, _ in thought.top}
        assert len(others) == sum(one["rank"] <= count for one in entry.values()) - (own["rank"] <= count)


def test_prompt_logprobs_of_a_chat_stand_beside_its_choices(url: str, bundled: LLM) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], **PLAIN, "max_tokens": 1, "prompt_logprobs": 1, "n": 2}
    answer = ask(url, "/v1/chat/completions", body).json
    thoughts = offline(bundled, "user: Hi\nassistant:", max_tokens=1, prompt_logprobs=1).prompt_logprobs
    check_prompt_logprobs(answer["prompt_logprobs"], thoughts, 1)
    assert ask(url, "/v1/chat/completions", {**body, "stream": True}).status == 400


# Warming, the fingerprint, deadlines


def test_no_tokens_warm_a_prefix(url: str, bundled: LLM) -> None:
    prompt = [7 + i % 90 for i in range(210)]
    warmed = complete(url, prompt=prompt, max_tokens=0, cache_salt="warm").json
    assert (warmed["choices"][0]["text"], warmed["choices"][0]["finish_reason"]) == ("", "length")
    assert warmed["usage"]["completion_tokens"] == 0
    assert warmed["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    later = complete(url, prompt=[*prompt, 5], cache_salt="warm").json["usage"]
    known = 209 if bundled.target.decoder.is_exact_by_construction else 192  # else whole pages
    assert later["prompt_tokens_details"]["cached_tokens"] == known
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 0}
    assert ask(url, "/v1/chat/completions", chat).json["choices"][0]["message"]["content"] == ""
    assert chunks_of(complete(url, max_tokens=0, stream=True))[-1]["choices"][0]["finish_reason"] == "length"


def test_every_response_tells_what_its_bytes_depend_on(bundled: LLM) -> None:
    with running(create_app(bundled, settings_for_tests())) as url:
        first = complete(url).json["system_fingerprint"]
        streamed = {chunk["system_fingerprint"] for chunk in chunks_of(complete(url, stream=True))}
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        assert first == ask(url, "/v1/chat/completions", chat).json["system_fingerprint"]
    assert streamed == {first} == {bundled.runtime.fingerprint()}


@pytest.fixture
def slow_weights(bundled: LLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose weights take half a second to be hashed."""
    fingerprint = bundled.runtime.fingerprint

    def slow() -> str:
        time.sleep(0.5)
        return fingerprint()

    monkeypatch.setattr(bundled.runtime, "fingerprint", slow)
    with running(create_app(bundled, settings_for_tests())) as url:
        yield url


def test_the_first_response_waits_for_the_fingerprint_and_nothing_else_does(slow_weights: str, bundled: LLM) -> None:
    started = time.monotonic()
    assert ask(slow_weights, "/health").status == 200
    assert time.monotonic() - started < 0.4
    assert len(complete(slow_weights).json["system_fingerprint"]) == 16
    assert time.monotonic() - started > 0.3


BODY = {"deadline_ms": 0.01}
HEADER = {"x-deadline-ms": "0.01", "content-type": "application/json"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "headers"),
    [(BODY, None), ({}, HEADER), (BODY, {**HEADER, "x-deadline-ms": "60000"}), ({"deadline_ms": 60000}, HEADER)],
    ids=["body", "header", "earlier in the body", "earlier in the header"],
)
def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    url: str, fields: dict[str, Any], headers: dict[str, str] | None, stream: bool
) -> None:
    """By a status, before a stream has begun; the client is told that it is no use to ask again."""
    answer = complete(url, headers, **fields, stream=stream)
    assert answer.status == 408
    assert answer.headers["x-should-retry"] == "false"
    assert (answer.error["code"], answer.error["param"]) == ("deadline_exceeded", "deadline_ms")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_every_endpoint_keeps_to_deadlines(url: str, path: str) -> None:
    content = "input" if path.endswith("responses") else "messages"
    body = {content: [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert ask(url, path, body, headers={**HEADER, "x-deadline-ms": "60000"}).status == 200
    assert ask(url, path, body, headers=HEADER).status == 408


@pytest.mark.parametrize("given", ["soon", "-5", "0", "nan", "inf", ""])
def test_a_header_that_is_no_time_is_refused_by_its_name(url: str, given: str) -> None:
    answer = complete(url, {**HEADER, "x-deadline-ms": given})
    assert (answer.status, answer.error["param"]) == (400, "x-deadline-ms")


def test_a_deadline_cuts_and_what_was_held_back_is_given_too(bundled: LLM) -> None:
    """Text that might still have become a stop string is text where a deadline ends the output."""
    endless = {"max_tokens": 1500, "logit_bias": {str(tilde(bundled)): 100}, "deadline_ms": 400}
    endless["speculation"] = {"drafters": "none"}
    with running(create_app(bundled, settings_for_tests())) as url:
        whole = complete(url, **endless, return_token_ids=True).json["choices"][0]
        assert (whole["finish_reason"], whole["stop_reason"]) == ("length", "deadline")
        assert 0 < len(whole["token_ids"]) < 1500
        assert whole["text"] == bundled.tokenizer.decode(whole["token_ids"])  # type: ignore[union-attr]
        held = {**endless, "stop": ["~" * 4000]}
        for stream in (False, True):
            answer = complete(url, **held, return_token_ids=True, stream=stream)
            choices = [chunk["choices"][0] for chunk in chunks_of(answer)] if stream else answer.json["choices"]
            text = "".join(choice["text"] for choice in choices)
            ids = [one for choice in choices for one in choice["token_ids"]]
            assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("length", "deadline")
            assert 0 < len(ids) < 1500
            assert text == bundled.tokenizer.decode(ids)  # type: ignore[union-attr]


def tilde(bundled: LLM) -> int:
    assert bundled.tokenizer is not None
    return bundled.tokenizer.encode("~", add_special_tokens=False)[-1]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stop_when_unsure_says_where_and_why(url: str, bundled: LLM, path: str) -> None:
    asked = {**PLAIN, "max_tokens": 60, "stop_when": "uncertain"}
    if path == "/v1/completions":
        alone = offline(bundled, **asked)
        body = {"prompt": TEXT, **asked}
    else:
        alone = None
        body = {"messages": [{"role": "user", "content": TEXT}], **asked}
    choice = ask(url, path, body).json["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "uncertain")
    assert "nats on average" in choice["stopped"]["reason"]
    if alone is not None:
        assert alone.stopped is not None
        assert choice["stopped"] == {
            "start": alone.stopped.start,
            "end": alone.stopped.end,
            "reason": alone.stopped.reason,
        }
        assert choice["text"] == alone.text
    last = chunks_of(ask(url, path, {**body, "stream": True}))[-1]["choices"][0]
    assert last["stopped"] == choice["stopped"]
