"""`POST /v1/completions`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from paceline.server.schemas.sampling import NumLogprobs, SamplingBody

Ids = list[int]


class CompletionBody(SamplingBody):
    """Prompts to continue."""

    prompt: str | Ids | Annotated[list[str], Field(min_length=1)] | Annotated[list[Ids], Field(min_length=1)]
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: NumLogprobs | None = None
    echo: bool | None = None  # the prompt in front of the text, and of the log probabilities
    add_special_tokens: bool | None = None
