"""A server with OpenAI's API whose answers a test makes up, under uvicorn on a port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from typing_extensions import Self

Say = Callable[[dict[str, Any]], Sequence[str]]  # a request's body to the tokens of its answer
Refuse = Callable[[str, dict[str, Any]], Response | None]  # path and body to what is answered instead, if anything


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": "x", "param": None, "code": code}
    return JSONResponse({"error": error}, status, {name.replace("_", "-"): value for name, value in headers.items()})


class OpenAIFake:
    """Answers as `say` says, a token every `pause` seconds where it streams.

    `margin` is the gap of the log probabilities of the two likeliest tokens; None: there are no log probabilities.
    """

    def __init__(
        self, say: Say, *, refuse: Refuse = lambda path, body: None, pause: float = 0.0, margin: float | None = None
    ) -> None:
        self.say, self.refuse, self.pause, self.margin = say, refuse, pause, margin
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.num_cut = 0  # streams whose reader went away
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app(), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "fake/model", "object": "model"}]}

        @app.post("/v1/{path:path}")
        async def answer(path: str, request: Request) -> Response:
            body = await request.json()
            self.asked.append({"path": path, **body})
            self.keys.append(request.headers.get("authorization"))
            refused = self.refuse(path, body)
            if refused is not None:
                return refused
            if body.get("stream"):
                return StreamingResponse(self._events(path, body), media_type="text/event-stream")
            return JSONResponse(self._whole(path, body))

        return app

    async def _events(self, path: str, body: dict[str, Any]) -> AsyncIterator[str]:
        tokens, is_whole = self.say(body), False
        try:
            for token in tokens:
                part = {"delta": {"content": token}} if path.startswith("chat") else {"text": token}
                yield event({"choices": [{"index": 0, "finish_reason": None, **part}]})
                await asyncio.sleep(self.pause)
            yield ": a comment\n\n"
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            usage = {"prompt_tokens": 7, "completion_tokens": len(tokens)}
            yield event({"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
            is_whole = True
        finally:
            self.num_cut += not is_whole

    def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        tokens = self.say(body)[: body.get("max_tokens", 16)]
        text = "".join(tokens)
        usage = {"prompt_tokens": 7, "completion_tokens": len(tokens)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        if path.startswith("chat"):
            choice["message"] = {"role": "assistant", "content": text}
            if body.get("logprobs") and self.margin is not None:
                choice["logprobs"] = {"content": [self._chances(token) for token in tokens]}
        else:
            choice["text"] = text
            if body.get("logprobs") and self.margin is not None:
                tops = [{top["token"]: top["logprob"] for top in self._chances(t)["top_logprobs"]} for t in tokens]
                choice["logprobs"] = {"tokens": list(tokens), "top_logprobs": tops}
        return {"id": "x", "choices": [choice], "usage": usage, "system_fingerprint": "fp_fake"}

    def _chances(self, token: str) -> dict[str, Any]:
        tops = [{"token": token, "logprob": -0.7}, {"token": token + "?", "logprob": -0.7 - (self.margin or 0.0)}]
        return {"token": token, "logprob": -0.7, "top_logprobs": tops}


def event(data: dict[str, Any]) -> str:
    """A server-sent event; characters beyond ASCII as they are, as many servers send them."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
