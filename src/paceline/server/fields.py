"""The four classes of request fields: honoured, harmless, refused, unknown.

Honoured ones are declared by the schemas. Harmless ones cannot change a byte of the response and are accepted.
Refused ones are known, would change it, and are not done here: but for their neutral value they are an error. Unknown
ones are ignored and named in the header `x-paceline-ignored-fields`; `--strict` refuses them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from paceline.server.errors import ApiError
from paceline.server.observing.exchange import note_ignored

HARMLESS = frozenset(
    {
        "background",
        "include_reasoning",
        "metadata",
        "moderation",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "session_id",
        "store",
        "stream_interval",
        "user",
    }
)
# Their neutral values, at which they ask for nothing; null is one for every field.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "chat_template": (),
    "documents": ([],),
    "dry_multiplier": (0,),
    "early_stopping": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "mirostat": (0,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "priority": (0,),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "return_tokens_as_token_ids": (False,),
    "suffix": ("",),
    "thinking_token_budget": (),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
    "xtc_probability": (0,),
}
_INERT_WITHOUT = {"dry": "dry_multiplier", "xtc": "xtc_probability", "mirostat": "mirostat"}


def check_extras(body: BaseModel, is_strict: bool) -> list[str]:
    """The unknown fields of a body, which are ignored.

    Raises:
        ApiError: a field that is refused, or with `is_strict` an unknown one.
    """
    extras = body.model_extra or {}
    for name, value in extras.items():
        if name in REFUSED and value is not None and not _is_neutral(value, REFUSED[name]):
            raise ApiError(400, f"{name} is not supported; allowed: to leave it out", name)
    unknown = [name for name in extras if not (name in HARMLESS or name in REFUSED or _belongs_to_refused(name))]
    if unknown and is_strict:
        raise ApiError(400, _unknown(unknown[0], type(body).model_fields), unknown[0])
    note_ignored(len(unknown))
    return unknown


def _is_neutral(value: Any, neutral: Iterable[Any]) -> bool:
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _belongs_to_refused(name: str) -> bool:
    """Whether it is a detail of something refused, which alone does nothing: `dry_base`, say."""
    return name.split("_")[0] in _INERT_WITHOUT


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"{name[:60]} is unknown" + (f"; did you mean {near[0]}?" if near else "")
