"""What real clients send, and what is right: one table, of which each row was a fault of some server."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from paceline import LLM
from paceline.server import create_app

from .asking import ask, send_raw
from .conftest import settings_for_tests
from .running import running

TOKENS = {"max_tokens": 3, "temperature": 0}
PROMPT = {"prompt": "Once upon a time", **TOKENS}
USER = [{"role": "user", "content": "Hello."}]
CHAT = {"messages": USER, **TOKENS}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "a fox"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **TOKENS, **fields}


def prompt(**fields: Any) -> dict[str, Any]:
    return {**PROMPT, **fields}


# (number of the row in the specification, body, the field that an error names, or None where it is served)
CHATS: list[tuple[str, dict[str, Any], str | None]] = [
    ("1", chat(*USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT), None),
    ("2", chat(*USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT), None),
    ("3 empty", chat(*USER, {"role": "assistant", "content": ""}, *USER), None),
    ("3 null", chat(*USER, {"role": "assistant", "content": None}, *USER), None),
    ("4", chat({"role": "user", "content": []}), None),
    ("5", chat({"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), None),
    (
        "6",
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}),
        "messages[0].content[0]",
    ),
    ("6", chat({"role": "user", "content": [IMAGE]}), "messages[0].content[0]"),
    ("7 none", chat(), "messages"),
    ("7 blank", chat({"role": "user", "content": "  "}), None),
    ("8", chat(*USER, tools=[]), None),
    ("9", chat(*USER, tools=None, tool_choice=None, response_format={"type": "text"}), None),
    ("9 none", chat(*USER, tool_choice="none"), None),
    ("11", chat(*USER, {"role": "assistant", "content": "x", "tool_calls": []}, *USER), None),
    ("12", chat({"role": "developer", "content": "Be brief."}, *USER), None),
    ("13 function", chat(*USER, {"role": "function", "name": "look", "content": "a"}), None),
    ("13 invented", chat({"role": "wizard", "content": "a"}), "messages[0].role"),
    ("14", chat({"role": "system", "content": "a"}, *USER, {"role": "system", "content": "b"}, *USER), None),
    ("15", chat(*USER, {"role": "assistant", "content": "I see"}), None),
    ("16", chat(*USER, max_tokens=None, max_completion_tokens=2), None),
    ("18", chat(*USER, stop=None), None),
    ("19", chat(*USER, logit_bias={}), None),
    ("20", chat(*USER, temperature=None, top_p=None, n=None, seed=None, stream_options=None, user=""), None),
    ("22", chat(*USER, max_completion_tokens=2), None),
    ("23", chat(*USER, logprobs=1), "logprobs"),
    ("26", chat(*USER, model="gpt-4"), "model"),
    ("41", chat(*USER, metadata={"a": "b"}, store=True, service_tier="fast", parallel_tool_calls=True), None),
    ("deep content", chat({"role": "user", "content": {"a": 1}}), "messages[0].content"),
]
COMPLETIONS: list[tuple[str, dict[str, Any], str | None]] = [
    ("16", prompt(max_tokens=None, stop=["."]), None),
    ("17 unlimited", prompt(max_tokens=-1, stop="."), None),
    ("17 huge", prompt(max_tokens=10**8, stop="."), None),
    ("18 empty", prompt(stop=""), None),
    ("18 list", prompt(stop=["", ""]), None),
    ("19 keys", prompt(logit_bias={"7": -5}), None),
    ("19 name", prompt(logit_bias={"cat": 1}), "logit_bias"),
    ("19 range", prompt(logit_bias={"99999999": 1}), None),  # told without a field: by its number
    ("21", prompt(top_p=0), "top_p"),
    ("23", prompt(logprobs=True), "logprobs"),
    ("24 texts", prompt(prompt=["Once", "A dog"]), None),
    ("24 ids", prompt(prompt=[5, 6, 7]), None),
    ("24 lists of ids", prompt(prompt=[[5, 6], [7]]), None),
    ("25 negative", prompt(prompt=[-1]), None),
    ("25 large", prompt(prompt=[2**63]), None),
    ("28 text", prompt(temperature="0.7"), "temperature"),
    ("refused", prompt(suffix="the end"), "suffix"),
    ("refused, neutral", prompt(suffix="", best_of=1, use_beam_search=False), None),
    ("samples", prompt(n=0), "n"),
    ("salt", prompt(cache_salt="a/b"), "cache_salt"),
]
_REFUSED = {"19 range", "25 negative", "25 large"}


@pytest.mark.parametrize(("body", "field"), [row[1:] for row in CHATS], ids=[row[0] for row in CHATS])
def test_chats(url: str, body: dict[str, Any], field: str | None) -> None:
    check(url, "/v1/chat/completions", body, field)


@pytest.mark.parametrize(("name", "body", "field"), COMPLETIONS, ids=[row[0] for row in COMPLETIONS])
def test_completions(url: str, name: str, body: dict[str, Any], field: str | None) -> None:
    if name in _REFUSED:
        answer = ask(url, "/v1/completions", body)
        assert answer.status == 400
        assert "token id" in answer.error["message"]
        return
    check(url, "/v1/completions", body, field)


def check(url: str, path: str, body: dict[str, Any], field: str | None) -> None:
    answer = ask(url, path, body)
    if field is None:
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["finish_reason"] in ("length", "stop")
        return
    assert answer.status == (404 if field == "model" else 400), answer.body
    assert answer.error["param"] == field


def test_an_empty_content_is_an_empty_text(url: str) -> None:
    empty = chat({"role": "user", "content": ""}, max_tokens=9)
    assert (
        ask(url, "/v1/chat/completions", empty).text
        == ask(url, "/v1/chat/completions", CHATS[4][1] | {"max_tokens": 9}).text
    )


def test_nothing_is_decoded_at_no_tokens(url: str) -> None:
    answer = ask(url, "/v1/completions", prompt(max_tokens=0))
    assert answer.status == 200, answer.body
    assert (answer.text, answer.json["choices"][0]["finish_reason"]) == ("", "length")


def test_of_two_limits_the_newer_name_wins(url: str) -> None:
    answer = ask(url, "/v1/chat/completions", chat(*USER, max_tokens=9, max_completion_tokens=2, ignore_eos=True))
    assert answer.json["usage"]["completion_tokens"] == 2


def test_choices_are_numbered_by_prompt_and_sample(url: str) -> None:
    answer = ask(url, "/v1/completions", prompt(prompt=[[5, 6], [7], [8, 9, 5]], n=2))
    assert [choice["index"] for choice in answer.json["choices"]] == list(range(6))


def test_an_empty_prompt_is_refused_by_its_name(url: str) -> None:
    for empty in ("", [], [""]):
        answer = ask(url, "/v1/completions", prompt(prompt=empty))
        assert answer.status == 400, empty
        assert "prompt" in answer.error["message"]


@pytest.mark.parametrize("text", [b'{"temperature": NaN}', b'{"temperature": 1e999}', b'{"a": -Infinity}'])
def test_numbers_are_finite(url: str, text: bytes) -> None:  # row 28
    answer = ask(url, "/v1/completions", text)
    assert answer.status == 400
    assert "finite" in answer.error["message"]


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"",
        b"[]",
        b'"a"',
        b"\xff\xfe{}",
        b'{"prompt": "\\ud800"}',
        b"[" * 10**5,
        b'{"a":' * 200 + b"1" + b"}" * 200,
    ],
)
def test_what_is_no_request_is_a_400(url: str, text: bytes) -> None:  # rows 27 and 42
    answer = ask(url, "/v1/completions", text)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_of_equal_keys_the_last_wins_and_nul_is_a_character(url: str) -> None:
    text = b'{"prompt": "a", "prompt": "Once\\u0000", "max_tokens": 1, "max_tokens": 2, "ignore_eos": true}'
    answer = ask(url, "/v1/completions", text)
    assert answer.status == 200, answer.body
    assert answer.json["usage"]["completion_tokens"] == 2


def test_content_types(url: str) -> None:  # rows 29 and 30
    body = json.dumps(PROMPT).encode()
    assert ask(url, "/v1/completions", body, headers={}).status == 200
    assert ask(url, "/v1/completions", body, headers={"content-type": "application/json; charset=utf-8"}).status == 200
    form = ask(url, "/v1/completions", body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert form.status == 415
    assert "content-type" in form.error["message"]
    zipped = {"content-type": "application/json", "content-encoding": "gzip"}
    assert ask(url, "/v1/completions", gzip.compress(body), headers=zipped).status == 415


def test_paths(url: str) -> None:  # rows 31 and 32
    assert ask(url, "/v1/completions/", PROMPT).status == 200
    for path in ("//v1/completions", "/v1/v1/completions", "/completions"):
        answer = ask(url, path, PROMPT)
        assert answer.status == 404
        assert "did you mean /v1/completions?" in answer.error["message"]
    assert "out of its scope" in ask(url, "/v1/embeddings", {"input": "a"}).error["message"]
    assert ask(url, "/health", method="HEAD").status == 200
    assert ask(url, "/v1").status == 200
    assert ask(url, "*", method="OPTIONS").status == 200
    assert ask(url, "/v1/completions").status == 405


def test_what_is_not_here_is_told_without_the_openapi_schema(bundled: LLM) -> None:
    """It takes half a second to make, in which nobody else would be answered."""
    app = create_app(bundled, settings_for_tests())
    with running(app) as url:
        told = ask(url, "/nothing").error["message"]
    assert app.openapi_schema is None
    known = told.partition("allowed: ")[2].split(", ")
    assert set(known) == {path for path in app.openapi()["paths"] if "{" not in path}


def test_a_chunked_body_that_waits_to_be_asked_for(url: str) -> None:  # row 33
    body = json.dumps(PROMPT).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (7, body[:7], len(body) - 7, body[7:])
    answer = send_raw(url, head + b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n", chunks)
    assert b"200 OK" in answer
    assert b'"text_completion"' in answer


def test_the_same_request_id_twice_is_two_requests(url: str, bundled: LLM) -> None:  # row 38
    plain = bundled.generate("Once upon a time", max_tokens=3, drafters="none").text
    assert [ask(url, "/v1/completions", prompt(request_id="same")).text for _ in range(2)] == [plain, plain]


def test_fields_that_nobody_knows_are_named(url: str) -> None:
    answer = ask(url, "/v1/completions", prompt(temprature=1, user="me", dry_base=2))
    assert answer.status == 200
    assert answer.headers["x-paceline-ignored-fields"] == "temprature"
    for path, body in (("/tokenize", {"content": "Once", "with_pieces": True}), ("/detokenize", {"tokens": [5]})):
        answer = ask(url, path, {**body, "mode": 1, "user": "me"})
        assert answer.status == 200
        assert "mode" in answer.headers["x-paceline-ignored-fields"].split(", ")
        assert "user" not in answer.headers["x-paceline-ignored-fields"]
        assert ask(url, path, {**body, "chat_template": "{{ x }}"}).status == 400
