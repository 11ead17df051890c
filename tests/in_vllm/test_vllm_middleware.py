"""The middleware for vLLM's API server: what it adds to bodies, and that it leaves everything else alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.engine.request import Hints
from paceline.vllm import middleware, tenants
from paceline.vllm.hints import read_hints
from paceline.vllm.middleware import Middleware, told
from paceline.vllm.tenants import api_key_of, kept_secret, tenant_of

SECRET = b"s" * 32
KEYED = [(b"authorization", b"Bearer sk-1")]


class Endpoint:
    """An ASGI app that reads a body, if it wants to, and then all that is left."""

    def __init__(self, wants: bool = True) -> None:
        self.wants, self.body, self.scope = wants, b"", {}
        self.rest: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, more = scope, self.wants
        while more:
            message = await receive()
            more = message["type"] == "http.request" and message["more_body"]
            self.body += message.get("body", b"")
            if message["type"] != "http.request":
                self.rest.append(message["type"])
        await send({"type": "http.response.start", "status": 200})
        self.rest.append((await receive())["type"])


def ask(
    app: Endpoint, parts: Sequence[bytes], headers: Any = (), path: str = "/v1/completions", method: str = "POST"
) -> tuple[list[Any], list[Any]]:
    """What was sent, and what of the client's messages nobody took."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    length = [(b"content-length", str(sum(map(len, parts))).encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": [*headers, *length]}
    asyncio.run(Middleware(app, SECRET)(scope, receive, send))
    return sent, messages


@pytest.mark.parametrize(
    "prediction",
    [
        "the expected",
        {"type": "content", "content": "the expected"},
        {"type": "content", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "expected"}]},
    ],
)
def test_a_prediction_comes_to_drafters_in_every_form(prediction: Any) -> None:
    body = json.dumps({"prompt": "x", "prediction": prediction}).encode()
    extra = json.loads(told(body, "", SECRET))["vllm_xargs"]
    tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: [ord(c) for c in text])
    assert read_hints(extra, tokenizer) == Hints(tuple(map(ord, "the expected")), "")


texts = st.text(max_size=3)
values = st.none() | texts | st.integers() | st.floats() | st.dictionaries(texts, texts)
bodies = st.dictionaries(st.sampled_from(["prompt", "prediction", "cache_salt", "vllm_xargs", "n"]) | texts, values)


@settings(max_examples=60, deadline=None)
@given(bodies, st.sampled_from(["", "key"]), st.sampled_from(["", "\r\n\t "]), st.sampled_from([None, 1]))
def test_every_other_byte_stays(fields: dict[str, Any], key: str, space: str, indent: int | None) -> None:
    body = (json.dumps(fields, indent=indent) + space).encode()
    found = told(body, key, SECRET)
    if found == body:
        return
    assert found.startswith(body.rstrip()[:-1])
    assert found.endswith(b"}" + space.encode())
    changed, extra = json.loads(found), fields.get("vllm_xargs") or {}
    hints = {name: value for name, value in changed["vllm_xargs"].items() if name not in extra}
    assert hints
    assert set(hints) <= {"paceline_tenant", "paceline_prediction"}
    assert repr(changed) == repr({**fields, "vllm_xargs": {**extra, **hints}})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe{}",
        b'{"prediction": 5}',
        b'{"prediction": {"content": null}}',
        b'{"prediction": "p", "vllm_xargs": "no object"}',
        b'{"prediction": "p", "n": ' + b"9" * 5000 + b"}",
        b'{"prediction": "p", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        '{"prediction": "p"}'.encode("utf-16"),
    ],
)
def test_what_makes_no_sense_is_left_to_vllm(body: bytes) -> None:
    assert told(body, "", SECRET) == body


def test_half_a_character_is_not_passed_on() -> None:
    assert json.loads(told(b'{"prediction": "a\\ud800b"}', "", SECRET))["vllm_xargs"]["paceline_prediction"] == "ab"


def test_what_a_client_says_itself_of_drafts_goes_first_but_not_of_its_tenant() -> None:
    said = {"paceline_prediction": "mine", "paceline_tenant": "victim", "other": 0.1}
    body = json.dumps({"prediction": "p", "vllm_xargs": said}).encode()
    extra = json.loads(told(body, "key", SECRET))["vllm_xargs"]
    assert extra == {**said, "paceline_tenant": tenant_of("key", None, "victim", SECRET)}
    assert extra["paceline_tenant"] != "victim"


def test_keys_salts_and_names_make_different_tenants_that_tell_nothing() -> None:
    said = ["", "a", "b"]
    names = {tenant_of(key, salt, own, SECRET) for key in said for salt in said for own in said}
    assert len(names) == 27  # one of them empty
    assert tenant_of("", None, None, SECRET) == tenant_of("", 5, "", SECRET) == ""
    assert tenant_of("a", None, None, SECRET) != tenant_of("a", None, None, b"t" * 32)
    assert all(len(name) in (0, 32) for name in names)
    assert tenant_of("", None, 5, SECRET) == tenant_of("", None, "5", SECRET)  # as drafters take it


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"host", b"x"), (b"authorization", b"bearer  sk ")], "sk"),
        ([(b"x-api-key", b"sk")], "sk"),
        ([(b"authorization", b"Basic sk")], ""),
        ([], ""),
    ],
)
def test_the_key_is_where_clients_put_it(headers: Any, key: str) -> None:
    assert api_key_of(headers) == key


def test_a_body_in_pieces_is_changed_and_the_end_of_the_client_comes_through() -> None:
    app = Endpoint()
    sent, left = ask(app, [b'{"prompt"', b": 1", b"}"], KEYED)
    assert json.loads(app.body) == {
        "prompt": 1,
        "vllm_xargs": {"paceline_tenant": tenant_of("sk-1", None, None, SECRET)},
    }
    assert b"sk-1" not in app.body
    assert app.rest == ["http.disconnect"]
    assert len(sent) == 1
    assert not left
    assert not [value for name, value in app.scope["headers"] if name == b"content-length"]


def test_a_client_that_goes_half_way_is_gone_for_the_endpoint_too() -> None:
    app = Endpoint()

    async def run() -> None:
        messages = [{"type": "http.request", "body": b"{", "more_body": True}] + 2 * [{"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None: ...

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        await Middleware(app, SECRET)(scope, receive, send)

    asyncio.run(run())
    assert app.body == b""
    assert app.rest == ["http.disconnect"] * 2


def test_of_a_request_that_is_refused_no_body_is_read() -> None:
    app = Endpoint(wants=False)
    app.wants = False

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401})

    sent, left = ask(refuse, [b"{", b"}"], KEYED)  # type: ignore[arg-type]
    assert sent[0]["status"] == 401
    assert len(left) == 3


def test_a_long_body_passes_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "MAX_BODY", 10)
    app = Endpoint()
    parts = [b'{"prediction": "abc"}', b" ", b"  "]
    ask(app, parts, KEYED)
    assert app.body == b"".join(parts)


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "POST"), ("/v1/completions", "GET"), ("/metrics", "GET")])
def test_other_requests_are_handed_on_untouched(path: str, method: str) -> None:
    app = Endpoint()
    ask(app, [b"{}"], KEYED, path, method)
    assert app.body == b"{}"
    assert app.scope["headers"][-1] == (b"content-length", b"2")


def test_one_secret_is_kept_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    first = kept_secret()
    assert kept_secret() == first
    (file,) = tmp_path.rglob("tenants.key")
    assert file.read_bytes() == first
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]
    file.write_bytes(b"short")
    assert len(kept_secret()) == 32
    monkeypatch.setattr(tenants, "state_folder", lambda: file)  # no folder
    assert kept_secret() != kept_secret()
