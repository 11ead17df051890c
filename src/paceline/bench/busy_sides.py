"""The two sides of `paceline bench busy`, each in a fresh process: Paceline, and transformers over the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from paceline.bench.contenders import DecodeWork, transformers_run
from paceline.bench.names import AUTO
from paceline.bench.subject import load_subject, read_stock
from paceline.bench.timing import timed
from paceline.engine.request import fresh_tenant
from paceline.pacing import FixedPacer

Answer = Callable[..., dict[str, Any]]
_RUN_UP = 4  # untimed tokens before each turn
_REST = 0.03  # seconds in which threads of the turn before fall asleep


@contextmanager
def paceline_side(
    model: str, dtype: str, device: str, draft_model: str | None, threads: int, prompt: str
) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Paceline, with and without automatic drafting."""
    torch.set_num_threads(threads)
    with load_subject(model, dtype, device, draft_model) as subject:
        ids = subject.llm.encode(prompt)

        def run(name: str, max_tokens: int) -> list[int]:
            how: dict[str, Any] = {} if name == AUTO else {"drafters": "none", "pacer": FixedPacer(0)}
            common: dict[str, Any] = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0.0}
            output = subject.llm.generate(list(ids), tenant=fresh_tenant(), **common, **how)
            return list(output.token_ids)

        numerics = subject.llm.target.numerics()
        yield {"numerics": numerics, "ids": list(ids)}, _turns(run)


@contextmanager
def transformers_side(
    model: str, dtype: str, device: str, threads: int, ids: list[int]
) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Transformers' own `generate`."""
    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    stock = read_stock(model, dtype, device)
    stock.generation_config = GenerationConfig(pad_token_id=0)
    generate = transformers_run(stock)

    def run(name: str, max_tokens: int) -> list[int]:
        return list(generate(DecodeWork(tuple(ids), max_tokens))[0])

    yield {"dtype": str(stock.dtype).removeprefix("torch.")}, _turns(run)


def _turns(run: Callable[[str, int], list[int]]) -> Answer:
    """A turn after a few untimed tokens, for whoever was before leaves its data in the caches."""

    def turn(name: str, max_tokens: int) -> dict[str, Any]:
        time.sleep(_REST)
        run(name, min(_RUN_UP, max_tokens))
        tokens, seconds = timed(lambda: run(name, max_tokens))
        return {"tokens": tokens, "seconds": seconds}

    return turn
