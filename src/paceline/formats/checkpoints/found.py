"""What a format finds among the tensors of a folder: parameters that lie there in several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paceline.errors import ModelError
from paceline.formats.checkpoints.rows import Matrix
from paceline.formats.checkpoints.tensors import Tensors

Settings = Mapping[str, Any]
FLOATS = ("F16", "BF16", "F32")  # what scales may be


@dataclass(frozen=True)
class Source:
    """A matrix as it was found: what the format calls it, and what it holds."""

    stored_as: str
    matrix: Matrix


@dataclass(frozen=True)
class Found:
    """A parameter of the model, the tensors that it is made of, and how they are looked at."""

    name: str
    parts: tuple[str, ...]
    source: Callable[[], Source]


Format = Callable[[Tensors, Settings], Iterator[Found]]


def parts_of(tensors: Tensors, module: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a module's tensors that there are."""
    return tuple(name for name in (f"{module}.{word}" for word in words) if name in tensors)


def matrix_shape(tensors: Tensors, name: str, dtypes: tuple[str, ...]) -> tuple[int, int]:
    """The shape of a tensor that must be a matrix.

    Raises:
        ModelError: it is not, or is empty, or of another dtype.
    """
    entry = tensors.entry(name)
    if entry.dtype not in dtypes or len(entry.shape) != 2 or not all(entry.shape):
        allowed = " or ".join(dtypes)
        raise ModelError(f"{tensors.folder}: {name} is {entry.dtype} {list(entry.shape)}; allowed: {allowed} (n, m)")
    return entry.shape[0], entry.shape[1]


def expect(tensors: Tensors, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """See that a tensor is what the others make one expect.

    Raises:
        ModelError: it is not.
    """
    entry = tensors.entry(name)
    if entry.dtype not in dtypes or entry.shape != shape:
        raise ModelError(
            f"{tensors.folder}: {name} is {entry.dtype} {list(entry.shape)}; "
            f"allowed: {' or '.join(dtypes)} {list(shape)}"
        )


def table(settings: Settings, key: str) -> Settings:
    """An object of a configuration, empty if there is none.

    Raises:
        ModelError: it is something else.
    """
    value = settings.get(key)
    if value is not None and not isinstance(value, dict):
        raise ModelError(f"the quantisation's {key} is {value!r}; allowed: an object")
    return value or {}


def number(settings: Settings, key: str, default: Any, allowed: Callable[[int], bool], words: str) -> int:
    """An integer of a configuration.

    Raises:
        ModelError: it is none, or not allowed.
    """
    value = settings.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not allowed(value):
        raise ModelError(f"the quantisation's {key} is {value!r}; allowed: {words}")
    return value
