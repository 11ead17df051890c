"""`POST /v1/completions`: prompts are gone on with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest

from paceline.engine.request import Request, Token
from paceline.server.bodies import JsonRoute
from paceline.server.deps import Tenant, TheService
from paceline.server.details import Details
from paceline.server.echo import Echo, prompt_logprobs_of
from paceline.server.errors import ApiError
from paceline.server.events import ALIVE, DONE, EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.generation import Generation, Piece
from paceline.server.schemas.completion import CompletionBody
from paceline.server.service import Service
from paceline.server.shapes import CompletionLogprobs, metrics_of, new_id, stopped_of, usage
from paceline.server.streaming import failed, ignored_header, stream_options

router = APIRouter(route_class=JsonRoute, tags=["generation"])
MAX_ECHOED_LOGPROBS = 20  # as of `prompt_logprobs`


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: HttpRequest, service: TheService, tenant: Tenant) -> Response:
    """Continue one prompt or several, `n` times each."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    options, prompts = stream_options(body), _prompts(service, body.prompt)
    read = partial(service.ids_of, prompts, body.add_special_tokens is not False)
    generation = await service.generation(read, body, _changes(body), tenant, len(prompts))
    try:
        echoes = await service.in_thread(lambda: _echoes(service, body, prompts, generation.requests))
    except BaseException:
        generation.give_up()
        raise
    answer = _Answer(service, body, generation, len(prompts), echoes)
    headers = ignored_header(ignored)
    if body.stream:
        return EventStream(answer.events(*options), generation.give_up, service.settings.limits.write_seconds, headers)
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


def _prompts(service: Service, prompt: Any) -> list[Any]:
    """The prompts of a body, texts or token ids.

    Raises:
        ApiError: there are too many.
    """
    is_one = isinstance(prompt, str) or not prompt or isinstance(prompt[0], int)
    several = [prompt] if is_one else list(prompt)
    allowed = service.settings.limits.max_prompts
    if len(several) > allowed:
        raise ApiError(400, f"prompt has {len(several)} entries; allowed: {allowed}", "prompt")
    return several


def _changes(body: CompletionBody) -> dict[str, Any]:
    """Options whose names or meanings are this endpoint's own."""
    if body.stream and body.prompt_logprobs is not None:
        raise ApiError(400, "prompt_logprobs is given with stream; allowed: without, or echo", "prompt_logprobs")
    echoed = body.logprobs if body.echo else None
    if echoed is not None and echoed > MAX_ECHOED_LOGPROBS:
        raise ApiError(400, f"logprobs is {echoed}; allowed with echo: 0 to {MAX_ECHOED_LOGPROBS}", "logprobs")
    of_prompt = [count for count in (body.prompt_logprobs, echoed) if count is not None]
    return {"logprobs": body.logprobs, "prompt_logprobs": max(of_prompt, default=None)}


def _echoes(service: Service, body: CompletionBody, prompts: Sequence[Any], requests: Sequence[Request]) -> list[Echo]:
    """That of each prompt; none, if they are not asked for."""
    if not body.echo:
        return []
    firsts, is_whole = requests[:: len(requests) // len(prompts)], body.truncate_prompt_tokens is None
    given = [prompt if isinstance(prompt, str) and is_whole else None for prompt in prompts]
    decode = service.runtime.factory.decode(firsts[0].params)
    return [Echo(request, text, decode) for request, text in zip(firsts, given, strict=True)]


class _Answer:
    """The response to one body."""

    def __init__(
        self, service: Service, body: CompletionBody, generation: Generation, num_prompts: int, echoes: Sequence[Echo]
    ) -> None:
        self._service, self._body, self._generation = service, body, generation
        self._details = Details(service, body, generation.requests)
        self._num_samples = len(generation.requests) // num_prompts
        self._head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or service.name,
            "system_fingerprint": service.fingerprint,
        }
        self._logprobs = [CompletionLogprobs(service.text_of) for _ in generation.requests]
        every_echo = [echo for echo in echoes for _ in range(self._num_samples)]
        self._echoes = dict(enumerate(every_echo))  # by sample, those that have not been told
        self._num_read = [0] * len(generation.requests)  # characters of each sample's own text

    async def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        tokens = await self._generation.finish()
        choices = [self._whole_choice(Piece(index, part, is_last=True)) for index, part in enumerate(tokens)]
        figures = {"usage": self._usage(), "metrics": metrics_of(self._generation.requests)}
        return {**self._head, "choices": choices, **figures}

    async def events(self, with_usage: bool, with_running_usage: bool) -> AsyncIterator[bytes]:
        """Those of a stream: texts as they come, then each sample's end, then the usage if it is asked for."""
        try:
            async for piece in self._generation.pieces(self._service.settings.limits.silence_seconds):
                if piece is None:
                    yield ALIVE
                    continue
                running = {"usage": self._usage()} if with_running_usage else {}
                added = self._read(piece)
                if piece.tokens or added[0]:
                    choice = self._choice(piece.index, *added)
                    yield event({**self._head, "choices": [choice], **running})
                if piece.is_last:
                    choice = self._choice(piece.index, "", [], None, is_last=True)
                    yield event({**self._head, "choices": [choice], **running})
            if with_usage:
                figures = {"usage": self._usage(), "metrics": metrics_of(self._generation.requests)}
                yield event({**self._head, "choices": [], **figures})
        except Exception as error:
            yield failed(error, str(self._head["id"]))
        yield DONE

    def _whole_choice(self, piece: Piece) -> dict[str, Any]:
        choice = self._choice(piece.index, *self._read(piece), is_last=True)
        if self._body.prompt_logprobs is not None:
            request = self._generation.requests[piece.index]
            told = prompt_logprobs_of(request, self._body.prompt_logprobs, self._service.text_of)
            choice["prompt_logprobs"] = told
        return choice

    def _read(self, piece: Piece) -> tuple[str, list[Token], dict[str, Any] | None]:
        """What a piece adds to its sample: text, tokens, log probabilities; its prompt too, if it is to be told."""
        index, request, wanted = piece.index, self._generation.requests[piece.index], self._body.logprobs
        text, logprobs = piece.text, self._logprobs[index]
        self._num_read[index] += len(text)
        if piece.is_last:  # what was held back for a stop string, where a deadline has cut
            text += request.text[self._num_read[index] :]
        echo = self._echoes.pop(index, None)
        if echo is not None:
            text = echo.text + text
            if wanted is not None and request.prompt_logprobs is not None:
                echo.add_to(logprobs, request.prompt_logprobs, wanted)
        is_told = wanted is not None and (piece.tokens or echo is not None)
        return text, piece.tokens, logprobs.of(piece.tokens) if is_told else None

    def _choice(
        self, index: int, text: str, tokens: list[Token], logprobs: dict[str, Any] | None, is_last: bool = False
    ) -> dict[str, Any]:
        request = self._generation.requests[index]
        reason, stop = (request.finish_reason, request.stop_reason) if is_last else (None, None)
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason, "stop_reason": stop}
        if is_last:
            choice |= stopped_of(request)
        if self._body.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice | self._details.of(index, tokens, is_last)

    def _usage(self) -> dict[str, Any]:
        return usage(self._generation.requests, self._num_samples)
