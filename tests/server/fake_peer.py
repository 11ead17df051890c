"""A small server with the protocol of OpenAI's: each prompt says what is to become of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

REFUSALS = {"refuse": 408, "reject": 429}


@dataclass
class FakePeer:
    """Writes down what it was sent. Words of two tokens each; `seconds` pass before a word."""

    seconds: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)  # that it was asked from
    on_their_way: int = 0
    most: int = 0
    drafts: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            return {"data": [{"id": "org/fake", "root": "org/fake"}]}

        @app.get("/metrics", response_class=PlainTextResponse)
        def metrics() -> str:
            names = {"vllm:spec_decode_num_drafts": self.drafts, "vllm:spec_decode_num_draft_tokens": 4 * self.drafts}
            names |= {"vllm:spec_decode_num_accepted_tokens": self.drafts, "paceline:engine_busy_seconds": 0.0}
            return "".join(f"# TYPE {name} counter\n{name}_total {value}\n" for name, value in names.items())

        @app.post("/tokenize")
        def tokenize(body: dict[str, Any]) -> dict[str, Any]:
            return {"tokens": sorted(set(body.get("prompt", "").encode()))}

        @app.post("/v1/completions")
        @app.post("/v1/chat/completions")
        async def generate(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            self.ports.append(request.client.port if request.client else 0)
            is_chat = "messages" in body
            prompt = str(body["messages"][0]["content"] if is_chat else body["prompt"])
            if prompt in REFUSALS:
                return JSONResponse({"error": {"message": f"will not {prompt}"}}, REFUSALS[prompt])
            return StreamingResponse(
                self._counting(self._events(prompt, body, is_chat)), media_type="text/event-stream"
            )

        return app

    async def _counting(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.on_their_way += 1
        self.most = max(self.most, self.on_their_way)
        async for event in events:
            yield event
        self.on_their_way -= 1

    async def _events(self, prompt: str, body: dict[str, Any], is_chat: bool) -> AsyncIterator[bytes]:
        count = (body["max_completion_tokens" if is_chat else "max_tokens"] + 1) // 2
        yield b": keep-alive\n\n"
        if is_chat:
            yield event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for word in range(1, count + 1):
            await asyncio.sleep(self.seconds)
            self.drafts += 1
            text = {"delta": {"content": " wörd"}} if is_chat else {"text": " wörd"}
            raw = event({"choices": [text], "usage": {"prompt_tokens": 7, "completion_tokens": 2 * word}})
            middle = raw.index(b"\xc3") + 1  # within a character
            yield raw[:middle]
            await asyncio.sleep(0)
            yield raw[middle:]
            if prompt == "break":
                return
            if prompt == "error":
                yield event({"error": {"message": "a step failed"}}) + b"data: [DONE]\n\n"
                return
            if prompt == "garbage":
                yield b"data: {nonsense\n\n"
        stop = {"stop_reason": "deadline"} if prompt == "cut" else {}
        empty = {"delta": {}} if is_chat else {"text": ""}
        yield event({"choices": [{**empty, "finish_reason": "length", **stop}]})
        yield event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2 * count}})
        yield b"data: [DONE]\n\n"


def event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
