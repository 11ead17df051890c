"""What a format finds among the tensors of a folder: parameters that lie there in several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paceline.errors import ModelError
from paceline.formats.checkpoint import StoredWeight
from paceline.formats.checkpoints.rows import Groups, pack
from paceline.formats.checkpoints.tensors import Tensors

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A parameter of the model, the tensors that it is made of, and how it is read."""

    name: str
    parts: tuple[str, ...]  # also those that say nothing about a weight, as scales of activations
    read: Callable[[], StoredWeight]


Format = Callable[[Tensors, Settings], Iterator[Found]]


def stored(name: str, kind: str, groups: Groups) -> StoredWeight:
    """A parameter in blocks, without loss if it can be had."""
    rows, is_exact = pack(name, groups)
    return StoredWeight(name, kind, rows, is_exact)


def parts_of(tensors: Tensors, module: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a module's tensors that there are."""
    return tuple(name for name in (f"{module}.{word}" for word in words) if name in tensors)


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


def number(settings: Settings, key: str, default: Any, allowed: Callable[[int], bool], words: str) -> int:
    """An integer of a configuration.

    Raises:
        ModelError: it is none, or not allowed.
    """
    value = settings.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not allowed(value):
        raise ModelError(f"the quantisation's {key} is {value!r}; allowed: {words}")
    return value
