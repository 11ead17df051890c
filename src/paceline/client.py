"""A client of any server with OpenAI's API: its models, whole answers, streams of events.

Knows nothing of what is asked and what for. A `Client` may be shared by threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from typing_extensions import Self

from paceline.console import printable
from paceline.errors import ConfigError, ServerError

_CONNECTING, _SILENCE = 10.0, 600.0  # seconds: a long prompt is read in silence
_LARGEST_ANSWER, _LARGEST_LINE = 2**26, 2**22  # bytes
_PASSING = {408, 429, 500, 502, 503, 504}  # of these a later request may be answered
_SHOWN = 300  # characters of an error that is no JSON
_DIRECT: dict[str, None] = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))  # by no proxy


class Client:
    """A server by its URL, with or without /v1.

    Raises:
        ConfigError: no URL of http or https.
    """

    def __init__(self, url: str, api_key: str | None = None, *, silence: float = _SILENCE) -> None:
        self.url = base_url(url)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(silence, connect=_CONNECTING)
        limits = httpx.Limits(max_connections=None)  # whoever has threads has counted them
        try:
            self._http = httpx.Client(timeout=timeout, limits=limits, headers=headers, mounts=_DIRECT)
        except (UnicodeEncodeError, ValueError) as error:  # never with the key in the message
            raise ConfigError("the API key or the proxy's URL cannot be sent; allowed: ASCII") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def models(self) -> list[str]:
        """The names of the server's models, in its order.

        Raises:
            ServerError: also where the answer is no list of models.
        """
        found = self._ask("GET", "/v1/models")
        try:
            return [str(model["id"]) for model in found["data"]]
        except (KeyError, TypeError) as error:
            raise ServerError(f"{self.url}/v1/models is no list of models") from error

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer to a request, a JSON object.

        Raises:
            ServerError: no answer, an error in its place, or no JSON object.
        """
        return self._ask("POST", path, body)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of an answer as they come; of a server that does not stream, its whole answer as one.

        Closing the iterator ends the request.

        Raises:
            ServerError: as in `post`; or an error in the place of an event.
        """
        with self._response("POST", path, body) as response:
            if "event-stream" not in response.headers.get("content-type", ""):
                yield _object(_read(response), self.url)
                return
            for line in _lines(response):
                name, _, data = line.partition(b":")
                if name != b"data" or not data.strip():
                    continue
                if data.strip() == b"[DONE]":
                    return
                yield _object(data, self.url)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._response(method, path, body) as response:
            return _object(_read(response), self.url)

    @contextmanager
    def _response(self, method: str, path: str, body: dict[str, Any] | None) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, self.url + path, json=body) as response:
                if not response.is_success:
                    raise _refusal(response)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = str(error) or type(error).__name__
            raise ServerError(f"the connection to {self.url} failed: {what}", retry_after=0.0) from error


def base_url(url: str) -> str:
    """The part of a server's URL before /v1, without a slash at its end."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"the URL is {url!r} ({error}); allowed: http://HOST:PORT, say") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"the URL is {url!r}; allowed: http://HOST:PORT or https://HOST, with or without /v1")
    if parsed.query or parsed.fragment or parsed.userinfo:
        raise ConfigError("the URL has a user, a query or a fragment; allowed: host and path alone, a key by --api-key")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """Lines as server-sent events have them: httpx's own also end at U+2028, which may stand in a text."""
    rest = b""
    for part in response.iter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        if len(rest) > _LARGEST_LINE:
            raise ServerError(f"an event has over {_LARGEST_LINE >> 20} MB", status=response.status_code)
    yield rest


def _read(response: httpx.Response) -> bytes:
    """The body, of which more than anybody asks for is not taken."""
    found = bytearray()
    for part in response.iter_bytes():
        found += part
        if len(found) > _LARGEST_ANSWER:
            raise ServerError(f"the answer has over {_LARGEST_ANSWER >> 20} MB", status=response.status_code)
    return bytes(found)


def _object(data: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{url} sent what is no JSON: {data[:40]!r}") from error
    if not isinstance(found, dict):
        raise ServerError(f"{url} sent {data[:40]!r}, which is no JSON object")
    if found.get("error"):
        code, message = _said(found)
        raise ServerError(f"{url} broke off: {message}", code=code)
    return found


def _refusal(response: httpx.Response) -> ServerError:
    """What an answer that is no success says, in one line."""
    status = response.status_code
    text = _read(response).decode(errors="replace")
    try:
        code, message = _said(json.loads(text))
    except (ValueError, RecursionError):
        code, message = None, _line(text[:_SHOWN])
    said = f"{status}: {message or response.reason_phrase}"
    return ServerError(said, status=status, code=code, retry_after=_retry_after(response))


def _said(found: Any) -> tuple[str | None, str]:
    """The code and the message of an error, in the shapes that servers give it, in one line fit for a terminal."""
    error = found.get("error") if isinstance(found, dict) and found.get("error") else found
    if not isinstance(error, dict):
        return None, _line(str(error))
    code, message = error.get("code"), error.get("message") or error.get("detail") or error
    return (code if isinstance(code, str) else None), _line(str(message))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _retry_after(response: httpx.Response) -> float | None:
    if response.status_code not in _PASSING or response.headers.get("x-should-retry") == "false":
        return None
    try:
        return max(float(response.headers.get("retry-after", 0)), 0.0)
    except ValueError:  # a date
        return 1.0
