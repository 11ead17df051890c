"""Options of drafters: dataclass fields with bounds, read from text and checked.

Knows nothing of drafters but that their options are fields made by `option`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from paceline.checks import index_of, plain
from paceline.errors import ConfigError

Field = dataclasses.Field[Any]
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def option(default: Any, *, help: str, ge: float | None = None, le: float | None = None) -> Any:
    """A dataclass field that is an option of the drafter: a string, an integer, a float or a flag, with its bounds."""
    if type(default) not in _KINDS:
        raise ConfigError(f"the default of an option is {default!r}; allowed: a str, an int, a float or a bool")
    return dataclasses.field(default=default, metadata={"help": help, "ge": ge, "le": le})


def options_of(cls: type) -> list[Field]:
    """The option fields of a drafter, in order."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return [f for f in fields if "help" in f.metadata]


def limits(field: Field) -> str:
    """The bounds of an option, in words; empty without any."""
    low, high = field.metadata["ge"], field.metadata["le"]
    if low is None:
        return "" if high is None else f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def kind_of(field: Field) -> str:
    """What sort of value an option takes, in words."""
    kind: type = type(field.default)
    return _KINDS[kind]


def parse(drafter: str, options: Collection[Field], text: str) -> dict[str, Any]:
    """The values in `name=value,name=value`.

    In a value that is text, a comma is part of it unless the name of an option and an equals sign follow.

    Raises:
        ConfigError: an option that the drafter lacks, one that is given twice, or a value of another kind.
    """
    known = {field.name: field for field in options}
    values: dict[str, Any] = {}
    for part in _parts(text, known):
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise unknown(drafter, part, known)
        if name in values:
            raise ConfigError(f"{drafter}: {name} is given twice in {text!r}; allowed: once")
        values[name] = _read(drafter, known[name], value)
    return values


def check(drafter: str, field: Field, value: Any) -> None:
    """ConfigError unless the option may have this value. Text may be any object: who reads it knows what it may be."""
    if not _is_text(field) and not _is_within(field, value):
        raise _refusal(drafter, field, value)


def unknown(drafter: str, given: str, known: Collection[str]) -> ConfigError:
    """What to raise for an option that there is not."""
    names = ", ".join(f"{name}=…" for name in known)
    return ConfigError(f"drafter {drafter!r} has no option {given!r}; allowed: {names or 'none'}")


def _parts(text: str, known: Mapping[str, Field]) -> Iterator[str]:
    """The `name=value` of a text, each."""
    commas = f",(?=(?:{'|'.join(known)})=)" if known else ","
    for part in re.split(commas, text) if text else ():
        field = known.get(part.partition("=")[0])
        yield from [part] if field is not None and _is_text(field) else part.split(",")


def _read(drafter: str, field: Field, text: str) -> Any:
    kind: type = type(field.default)
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise _refusal(drafter, field, text) from None


def _is_text(field: Field) -> bool:
    return isinstance(field.default, str)


def _is_within(field: Field, value: Any) -> bool:
    content, low, high = plain(value), field.metadata["ge"], field.metadata["le"]
    if isinstance(field.default, bool) or isinstance(content, bool):
        return isinstance(field.default, bool) and isinstance(content, bool)
    is_number = isinstance(content, (int, float)) and content == content
    is_of_kind = is_number and (isinstance(field.default, float) or index_of(content) is not None)
    return is_of_kind and (low is None or content >= low) and (high is None or content <= high)


def _refusal(drafter: str, field: Field, value: object) -> ConfigError:
    bounds = f", {limits(field)}" if limits(field) else ""
    return ConfigError(f"{drafter}: {field.name} is {value!r}; allowed: {kind_of(field)}{bounds}")
