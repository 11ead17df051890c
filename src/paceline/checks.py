"""Checks of values that callers give: each returns the value as Python's own, or says what is allowed.

Arrays, tensors and their scalars are known by their `tolist`; no array library is imported.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from numbers import Real
from typing import Any, NoReturn

from paceline.errors import ConfigError, first_line

Check = Callable[[str, Any], Any]  # name and value to the value that is kept


def plain(value: Any) -> Any:
    """Python's own number, string or list in place of an array library's; anything else as it is."""
    is_array = hasattr(value, "tolist") and not isinstance(value, (memoryview, type))
    return value.tolist() if is_array else value


def index_of(value: Any) -> int | None:
    """A value as an integer; None if it is none. Floats and booleans are none."""
    number = plain(value)
    try:
        return None if isinstance(number, bool) else operator.index(number)
    except TypeError:
        return None


def integer(low: int, high: float = math.inf) -> Check:
    """Integers from `low` to `high`."""
    limit = f"at least {low}" if high == math.inf else f"from {low} to {high}"

    def check(name: str, value: Any) -> int:
        number = index_of(value)
        if number is None or not low <= number <= high:
            _refuse(name, value, f"an integer {limit}")
        return number

    return check


def number(low: float, high: float, rule: str) -> Check:
    """Numbers from `low` to `high`, as floats; `rule` says it in words."""

    def check(name: str, value: Any) -> float:
        number = _float_of(value)
        if not low <= number <= high:  # NaN fails every comparison
            _refuse(name, value, f"a number {rule}")
        return number

    return check


def flag(name: str, value: Any) -> bool:
    """True or False."""
    content = plain(value)
    return content if isinstance(content, bool) else _refuse(name, value, "True or False")


def text(allowed: str) -> Check:
    """A string; `allowed` says of which kind."""

    def check(name: str, value: Any) -> str:
        return _str_of(value) if isinstance(value, str) else _refuse(name, value, allowed)

    return check


def strings(name: str, value: Any) -> tuple[str, ...]:
    """A list of strings that are not empty."""
    content = plain(value)
    if not _is_list(content) or not all(isinstance(v, str) and v for v in content):
        _refuse(name, value, "a list of strings that are not empty")
    return tuple(map(_str_of, content))


def string_or_strings(name: str, value: Any) -> tuple[str, ...]:
    """One string that is not empty, or a list of such strings."""
    content = plain(value)
    return (_str_of(content),) if isinstance(content, str) and content else strings(name, content)


def some_strings(name: str, value: Any) -> tuple[str, ...]:
    """At least one string."""
    return strings(name, value) or _refuse(name, value, "a list of at least one string")


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """A list of token ids."""
    content = plain(value)
    if not _is_list(content):
        _refuse(name, value, "a list of token ids")
    return tuple(_TOKEN(name, token) for token in content)


def some_token_ids(name: str, value: Any) -> tuple[int, ...]:
    """At least one token id."""
    return token_ids(name, value) or _refuse(name, value, "a list of at least one token id")


def bias(name: str, value: Any) -> dict[int, float]:
    """Numbers by token id; the ids may be strings, as the keys of JSON are."""
    if not isinstance(value, Mapping):
        _refuse(name, value, "a mapping from token ids to numbers")
    kept: dict[int, float] = {}
    for key, entry in value.items():
        is_written = isinstance(key, str) and re.fullmatch("[0-9]{1,18}", key)
        token = _TOKEN(f"{name} token", int(key) if is_written else key)
        number = _float_of(entry)
        if not -math.inf <= number < math.inf:
            _refuse(f"{name}[{token}]", entry, "a number, or -inf to forbid the token")
        if token in kept:
            raise ConfigError(f"{name} has token {token} twice; allowed: once")
        kept[token] = number
    return kept


def response_format(name: str, value: Any) -> Mapping[str, Any]:
    """OpenAI's form; what it means is `schema_of`'s business."""
    if not isinstance(value, Mapping) or value.get("type") not in ("text", "json_object", "json_schema"):
        _refuse(name, value, "a mapping whose type is 'text', 'json_object' or 'json_schema'")
    return value


def schema_of(response_format: Mapping[str, Any] | None) -> str | None:
    """The JSON schema that a response format stands for; None for text."""
    kind = response_format["type"] if response_format is not None else "text"
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    try:
        if isinstance(schema, (Mapping, bool)):
            return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the schema of response_format is no JSON: {first_line(error)}") from error
    _refuse("json_schema of response_format", named, "a mapping with a JSON schema as 'schema'")


_TOKEN = integer(0)


def _float_of(value: Any) -> float:
    """A value as a float; NaN if it is no number that a float can hold. Booleans and strings are none."""
    number = plain(value)
    try:
        return float(number) if isinstance(number, Real) and not isinstance(number, bool) else math.nan
    except OverflowError:
        return math.nan


def _str_of(value: str) -> str:
    return str.__str__(value)  # a subclass may print itself as something else


def _is_list(values: object) -> bool:
    return isinstance(values, Collection) and not isinstance(values, (str, bytes, Mapping))


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise ConfigError(f"{name} is {value!r}; allowed: {allowed}")
