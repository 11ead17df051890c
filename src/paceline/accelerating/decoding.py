"""Rows become requests of the engine, and its tokens the rows' outputs, told to a streamer as they come."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.following import follow
from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.rows import Row
from paceline.engine.request import Drafter, Request
from paceline.errors import ContextLengthError, PacelineError, RequestError
from paceline.llm import LLM
from paceline.options import read_call
from paceline.streams import decode

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Manner:
    """What holds for all rows of a call; `temperature` tells drafters what to expect, and no more."""

    temperature: float
    seed: int
    drafters: Sequence[Drafter]

    @classmethod
    def of(cls, config: GenerationConfig, drafters: Sequence[Drafter]) -> Manner:
        """As settings have it; the seed is drawn as `torch.manual_seed` has it."""
        if not config.do_sample:
            return cls(0.0, 0, drafters)
        temperature = 1.0 if config.temperature is None else float(config.temperature)
        return cls(min(max(temperature, 1e-4), 1e4), int(torch.randint(2**63 - 1, ()).item()), drafters)


def drafters_for(llm: LLM, assistant: PreTrainedModel | None) -> Sequence[Drafter]:
    """Those of the `LLM`; the assistant of a call takes the place of its draft model.

    One that cannot draft is left out, with a warning: it could have changed the speed alone.
    """
    if assistant is None:
        return llm.runtime.drafters
    try:
        own = llm.runtime.of_draft_model(assistant)
    except PacelineError as error:
        warnings.warn(f"assistant_model drafts nothing here: {error}", UserWarning, stacklevel=4)
        return llm.runtime.drafters
    names = {drafter.name for drafter in own}
    return [*(drafter for drafter in llm.runtime.drafters if drafter.name not in names), *own]


def requests_of(llm: LLM, rows: Sequence[Row], manner: Manner) -> list[Request]:
    """A request for each row.

    Raises:
        HandOver: a row does not fit the context or the cache.
    """
    try:
        return [_request(llm, row, manner) for row in rows]
    except (ContextLengthError, RequestError) as error:
        raise HandOver("the prompt with max_length", str(error)) from error


def _request(llm: LLM, row: Row, manner: Manner) -> Request:
    options = {
        "max_tokens": row.law.num_new,
        "temperature": manner.temperature,
        "stop_token_ids": [token for token in row.law.end_tokens if 0 <= token < llm.target.vocab_size],
        "ignore_eos": True,
        "seed": manner.seed,
    }
    call, factory = replace(read_call(None, options), sampler=row.law.sampler), llm.runtime.factory
    if row.source is not None:
        call = replace(call, output_start=tuple(row.prompt))
    read = row.prompt if row.source is None else row.source
    [request] = factory.requests(read, call, manner.drafters, factory.hints(call))
    return request


def run(llm: LLM, requests: Sequence[Request], streamer: Any, pad: int) -> None:
    """Decode requests to their ends."""
    thread = llm.runtime.thread
    if streamer is None:
        decode(thread, requests, None)
        return
    follow(thread, requests, lambda tokens: streamer.put(torch.tensor(tokens)), pad)
