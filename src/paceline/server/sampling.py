"""From a body's fields to the options of a call."""

from __future__ import annotations

from typing import Any

from paceline.errors import ConfigError
from paceline.server.errors import ApiError
from paceline.server.schemas.sampling import Prediction, ResponseFormat, SamplingBody, Speculation

_SAME = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stop_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "bad_words",
    "allowed_token_ids",
    "ignore_eos",
    "min_tokens",
    "seed",
    "n",
    "truncate_prompt_tokens",
    "stop_when",
)


def sampling_of(body: SamplingBody) -> dict[str, Any]:
    """The options that a body asks for; None where it says nothing.

    Raises:
        ConfigError: two forms of structured output, or one without what it needs.
        ApiError: drafters with options.
    """
    options: dict[str, Any] = {name: getattr(body, name) for name in _SAME}
    options["stop"] = stop_of(body.stop)
    options |= _structure_of(body)
    if body.prediction is not None:
        options["prediction"] = _content(body.prediction) or None
    if body.speculation is not None:
        options["drafters"] = _drafters(body.speculation)
        options["num_speculative_tokens"] = body.speculation.num_speculative_tokens
    return options


def stop_of(stop: str | list[str] | None) -> list[str] | None:
    """Stop strings; an empty one is none."""
    several = [stop] if isinstance(stop, str) else stop or []
    return [one for one in several if one] or None


def _drafters(asked: Speculation) -> str | list[str] | None:
    """Drafters by their names alone: options may name files of the server to read or write, and models to load."""
    given = asked.drafters
    for name in [given] if isinstance(given, str) else given or []:
        if ":" in name:
            allowed = "names alone; options are for whoever starts the server"
            raise ApiError(400, f"speculation.drafters has {name[:60]!r}; allowed: {allowed}", "speculation.drafters")
    return given


def _content(prediction: Prediction) -> str:
    content = prediction.content
    return content if isinstance(content, str) else "".join([part.text for part in content])


def _structure_of(body: SamplingBody) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.response_format is not None:
        found["response_format"] = _response_format(body.response_format)
    if body.structured_outputs is not None:
        asked = body.structured_outputs
        found |= {name: value for name, value in (("regex", asked.regex), ("choice", asked.choice)) if value}
        if asked.json_ is not None:
            if "response_format" in found:
                raise ConfigError("structured_outputs.json is given beside response_format; allowed: one of them")
            found["response_format"] = _json_schema(asked.json_)
    return found


def _response_format(asked: ResponseFormat) -> dict[str, Any]:
    form = asked.model_dump(by_alias=True, exclude_none=True)
    schema = form.pop("schema", None)
    if asked.type == "json_object" and schema is not None:
        return _json_schema(schema)
    return form


def _json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
