"""How a model's templates want conversations written, and its answers read: tried out once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.chat_parsing import ResponseParser

from paceline.errors import ConfigError, first_line
from paceline.server.chat.marked import Marked
from paceline.text.tokenizer import Tokenizer

_MARK = "qzxv"
_ARGUMENTS = {_MARK: "qzxw"}
_TOOL = {"type": "function", "function": {"name": _MARK, "description": "", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class ChatFormat:
    """What was found of a chat template, and the response template beside it."""

    has_template: bool = False
    template: str | None = None  # in place of the model's own
    takes_tools: bool = False
    wants_parts: bool = False  # content as a list of parts, a text is not shown
    wants_mappings: bool = True  # arguments of calls as values, not as JSON
    has_developer: bool = False
    takes_pictures: bool = False
    response_template: Mapping[str, Any] | None = None  # as transformers' `chat_parsing` reads it
    marked: Marked | None = None  # decodes what it reads


def find_format(
    tokenizer: Tokenizer | None, template: str | None, response_template: Mapping[str, Any] | None, architecture: str
) -> ChatFormat:
    """The format of a model.

    Args:
        tokenizer: the model's.
        template: a chat template in place of its own.
        response_template: one in place of its own.
        architecture: as `config.json` has it, for families whose tokenizers bring no response template.

    Raises:
        ConfigError: one of the templates cannot be read.
    """
    if tokenizer is None or not (template or tokenizer.inner.chat_template):
        return ChatFormat()
    trial = _Trial(tokenizer, template)
    trial.check()
    show = trial.show
    user = {"role": "user", "content": _MARK}
    source = template or json.dumps(tokenizer.inner.chat_template)
    own = response_template or getattr(tokenizer.inner, "response_template", None)
    reading = own or (None if template else of_family(architecture))
    if reading:
        _check(reading)
    return ChatFormat(
        has_template=True,
        template=template,
        takes_tools=_MARK in show([{"role": "user", "content": "a"}], [_TOOL]),
        wants_parts=_MARK not in show([user]) and _shows_parts(show([{**user, "content": _part(_MARK)}])),
        wants_mappings=json.dumps(_ARGUMENTS) not in show(_called(json.dumps(_ARGUMENTS)), [_TOOL]),
        has_developer="developer" in source,
        response_template=reading,
        marked=Marked(tokenizer, reading) if reading else None,
    )


class _Trial:
    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        self._inner, self._template = tokenizer.inner, template

    def check(self) -> None:
        """Refuse what is no template."""
        try:
            self._inner.apply_chat_template(
                [{"role": "user", "content": ""}], chat_template=self._template, tokenize=False
            )
        except TemplateSyntaxError as error:
            message = f"the chat template is no Jinja in line {error.lineno}: {error.message}"
            raise ConfigError(f"{message}; allowed: one that transformers can read") from error
        except Exception:
            return  # it wants another conversation

    def show(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None) -> str:
        """What the template makes of messages; nothing if it refuses them."""
        with suppress(Exception):  # a template may raise anything
            how = {"tokenize": False, "add_generation_prompt": True, "chat_template": self._template}
            return str(self._inner.apply_chat_template(list(messages), tools=tools, **how))
        return ""


def _check(response_template: Mapping[str, Any]) -> None:
    try:
        ResponseParser(response_template, prefix="")
    except Exception as error:
        message = f"the response template cannot be read: {first_line(error)}"
        raise ConfigError(f"{message}; allowed: a template of transformers' chat response parsing") from error


def _part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _shows_parts(shown: str) -> bool:
    return _MARK in shown and f"'{_MARK}'" not in shown  # not the list itself, as Python writes it


def _called(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": _MARK, "arguments": arguments}}
    return [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]


def of_family(architecture: str) -> Mapping[str, Any] | None:
    """The response template that transformers' own server has for a family of models without one."""
    types = [name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == architecture]
    try:
        from transformers.cli.serving.utils import get_response_template
    except ImportError:
        return None
    without = SimpleNamespace(response_template=None)
    found = [get_response_template(without, SimpleNamespace(config=SimpleNamespace(model_type=t))) for t in types]
    return next((template for template in found if template is not None), None)
