"""Rows become requests of the engine, and its tokens the rows' outputs, told to a streamer as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.following import follow
from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.law import RowLaw
from paceline.engine.request import Request
from paceline.errors import ContextLengthError, RequestError
from paceline.llm import LLM
from paceline.options import Drafters, read_call
from paceline.streams import decode

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass(frozen=True)
class Row:
    """A row of a batch: its tokens without padding, and how they go on."""

    prompt: list[int]
    law: RowLaw


@dataclass(frozen=True)
class Manner:
    """What holds for all rows of a call; `temperature` tells drafters what to expect, and no more."""

    temperature: float
    seed: int
    drafters: Drafters | None

    @classmethod
    def of(cls, config: GenerationConfig, drafters: Drafters | None) -> Manner:
        """As settings have it; the seed is drawn as `torch.manual_seed` has it."""
        if not config.do_sample:
            return cls(0.0, 0, drafters)
        temperature = 1.0 if config.temperature is None else float(config.temperature)
        return cls(min(max(temperature, 1e-4), 1e4), int(torch.randint(2**63 - 1, ()).item()), drafters)


def requests_of(llm: LLM, rows: Sequence[Row], manner: Manner) -> list[Request]:
    """A request for each row.

    Raises:
        HandOver: a row does not fit the context or the cache.
    """
    try:
        return [_request(llm, row, manner) for row in rows]
    except (ContextLengthError, RequestError) as error:
        raise HandOver("max_length", str(error)) from error


def _request(llm: LLM, row: Row, manner: Manner) -> Request:
    options = {
        "max_tokens": row.law.num_new,
        "temperature": manner.temperature,
        "stop_token_ids": sorted(row.law.end_tokens),
        "ignore_eos": True,
        "seed": manner.seed,
        "drafters": manner.drafters,
    }
    call = replace(read_call(None, options), sampler=row.law.sampler)
    [request] = llm.runtime.requests_of([row.prompt], call)
    return request


def run(llm: LLM, requests: Sequence[Request], streamer: Any, pad: int) -> None:
    """Decode requests to their ends."""
    thread = llm.runtime.thread
    if streamer is None:
        decode(thread, requests, None)
        return
    follow(thread, requests, lambda tokens: streamer.put(torch.tensor(tokens)), pad)
