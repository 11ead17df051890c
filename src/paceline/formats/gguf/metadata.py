"""The metadata of a GGUF file: values by key, arrays decoded when they are asked for."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from paceline.errors import ModelError
from paceline.formats.gguf.cursor import Cursor, texts

MAX_KEYS: Final = 1 << 16  # files have about 50
MAX_KEY_BYTES: Final = 1 << 16  # the format's own limit
MAX_TEXT_BYTES: Final = 1 << 24  # a chat template has a few thousand
MAX_ITEMS: Final = 1 << 24  # of an array: a vocabulary has a quarter of a million tokens

_FLOAT32, _BOOL, _STRING, _ARRAY = 6, 7, 8, 9
_NAMES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "float32",
    "bool",
    "string",
    "array",
    "uint64",
    "int64",
    "float64",
)
_FORMS: Final = {
    kind: struct.Struct("<" + letter)
    for kind, letter in {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}.items()
}
_KEY_BYTES = 8 + 4 + 1  # the least that a key takes with its value
_T = TypeVar("_T")


@dataclass(frozen=True)
class Array:
    """An array that lies in a file."""

    kind: int  # of its items
    count: int
    begin: int  # byte of the first one

    @property
    def words(self) -> str:
        """What it is, for messages."""
        return f"an array of {self.count} {_NAMES[self.kind]}"


Value = int | float | bool | str | Array


class Metadata:
    """Values by key, each checked for its type when it is asked for; a value that is not there is the default."""

    def __init__(self, values: dict[str, Value], view: memoryview, name: str) -> None:
        self._values = values
        self._view = view
        self.name = name

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        """All keys, as they stand in the file."""
        return list(self._values)

    def integer(self, key: str, default: int | None = None, least: int = 0, most: int = 2**31 - 1) -> int:
        """A whole number within bounds.

        Raises:
            ModelError: there is none and no default, it is of another type, or out of bounds.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._error(key, value, f"an integer from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._error(key, value, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, value, "a bool")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._error(key, value, "a string")
        return value

    def is_array(self, key: str) -> bool:
        """True for a key whose value is an array."""
        return isinstance(self._values.get(key), Array)

    def texts(self, key: str) -> list[str]:
        """The strings of an array."""
        array = self._array(key, {_STRING}, "an array of strings")
        return texts(self._view, array.begin, array.count, f"{self.name}: {key}")

    def integers(self, key: str) -> list[int]:
        """The whole numbers, or the bools, of an array."""
        return [int(x) for x in self._numbers(key, {*_FORMS, _BOOL} - {6, 12}, "an array of integers")]

    def numbers(self, key: str) -> np.ndarray:
        """The numbers of an array, as float64."""
        return self._numbers(key, set(_FORMS), "an array of numbers").astype(np.float64)

    def _numbers(self, key: str, kinds: set[int], allowed: str) -> np.ndarray:
        array = self._array(key, kinds, allowed)
        form = np.dtype("u1") if array.kind == _BOOL else np.dtype("<" + _FORMS[array.kind].format[1:])
        return np.frombuffer(self._view, form, array.count, array.begin)

    def _array(self, key: str, kinds: set[int], allowed: str) -> Array:
        value = self._get(key, None)
        if not isinstance(value, Array) or value.kind not in kinds:
            raise self._error(key, value, allowed)
        return value

    def _get(self, key: str, default: _T | None) -> Value | _T:
        value = self._values.get(key, default)
        if value is None:
            raise ModelError(f"{self.name} says nothing of {key}; allowed: a file that does")
        return value

    def _error(self, key: str, value: object, allowed: str) -> ModelError:
        words = value.words if isinstance(value, Array) else repr(value)
        return ModelError(f"{self.name}: {key} is {words[:80]}; allowed: {allowed}")


def read_metadata(cursor: Cursor, count: int) -> Metadata:
    """The keys and values at a place in a file.

    Raises:
        ModelError: a type that does not exist, a key that occurs twice, or more than the file holds.
    """
    values: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.text("a key", MAX_KEY_BYTES)
        if key in values:
            raise ModelError(f"{cursor.name}: the key {key!r} occurs twice; allowed: once")
        values[key] = _value(cursor, cursor.u32(f"the type of {key!r}"), key)
    return Metadata(values, cursor.view, cursor.name)


def num_keys(cursor: Cursor) -> int:
    """The number of keys that a header announces."""
    return cursor.count("keys", _KEY_BYTES, MAX_KEYS)


def _value(cursor: Cursor, kind: int, key: str) -> Value:
    if kind in _FORMS:
        number: int | float = cursor.unpack(_FORMS[kind], key)
        return float(str(np.float32(number))) if kind == _FLOAT32 else number  # 1e-5, as it was before it was stored
    if kind == _BOOL:
        return bool(_checked_bools(cursor, 1, key))
    if kind == _STRING:
        return cursor.text(key, MAX_TEXT_BYTES)
    if kind == _ARRAY:
        return _array(cursor, key)
    raise ModelError(f"{cursor.name}: {key} is of type {kind}; allowed: 0 to {len(_NAMES) - 1}")


def _array(cursor: Cursor, key: str) -> Array:
    kind = cursor.u32(f"the type of the items of {key!r}")
    if kind == _ARRAY or kind >= len(_NAMES):
        raise ModelError(f"{cursor.name}: the items of {key} are of type {kind}; allowed: 0 to 8, 10 to 12")
    item_bytes = 8 if kind == _STRING else 1 if kind == _BOOL else _FORMS[kind].size
    count = cursor.count(f"items of {key!r}", item_bytes, MAX_ITEMS)
    array = Array(kind, count, cursor.at)
    if kind == _STRING:
        cursor.skip_texts(count, key)
    elif kind == _BOOL:
        _checked_bools(cursor, count, key)
    else:
        cursor.at += count * item_bytes
    return array


def _checked_bools(cursor: Cursor, count: int, key: str) -> int:
    """How many of the next bytes are true; each is 0 or 1."""
    cursor.need(count, key)
    found = np.frombuffer(cursor.view, np.uint8, count, cursor.at)
    if (found > 1).any():
        raise ModelError(f"{cursor.name}: {key} has the bool {found.max()}; allowed: 0, 1")
    cursor.at += count
    return int(found.sum())
