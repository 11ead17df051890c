"""The fields that all generating endpoints share, under OpenAI's names and vLLM's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paceline.engine.tree import MAX_DEPTH

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
NumLogprobs = Annotated[int, Field(ge=0, le=20)]
Strings = Annotated[list[str], Field(max_length=256)]


class Body(BaseModel):
    """A body: numbers are numbers, not texts of them; fields that are not declared are looked at by `fields`."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


class StreamOptions(Body):
    """What a stream tells beside its text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class JsonSchema(Body):
    """A schema that the output follows."""

    name: str | None = None
    json_schema: dict[str, Any] | bool | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the output."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")  # llama-server's form, beside json_object
    complete: bool | None = None


class StructuredOutputs(Body):
    """VLLM's form of the same."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Strings | None = None


class TextPart(Body):
    """A part of a content."""

    type: Literal["text"] = "text"
    text: str


class Prediction(Body):
    """What the output will probably be: it changes the speed alone."""

    type: Literal["content"] = "content"
    content: str | list[TextPart]


class Speculation(Body):
    """Who drafts for this request, and how far; it changes the speed alone."""

    drafters: str | Strings | None = None
    num_speculative_tokens: Annotated[int, Field(ge=0, le=MAX_DEPTH)] | None = None


class SamplingBody(Body):
    """How to sample, for how long, and how to answer."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    stop: str | Strings | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    bad_words: Strings | None = None
    allowed_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    seed: Int64 | None = None
    n: int | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prediction: Prediction | None = None
    speculation: Speculation | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^@/\\\x00]*$")] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    # From the request's arrival; so says the header x-deadline-ms. Of both the earlier one holds.
    deadline_ms: Annotated[float, Field(gt=0)] | None = None
    stop_when: Annotated[str, Field(pattern="^uncertain$")] | None = None
    return_token_ids: bool | None = None
    return_token_details: bool | None = None
