"""The registry of drafters, their options, and a base class with nothing in it to repeat.

A drafter is a dataclass; its fields, made by `option`, are its options on the command line and in the API:
`suffix:max_match=8` and `register("suffix")` meet here and nowhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from paceline.engine.request import Drafter, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.errors import ConfigError

_REGISTRY: dict[str, type[BaseDrafter]] = {}
DrafterClass = TypeVar("DrafterClass", bound="type[BaseDrafter]")


class BaseDrafter:
    """A drafter that proposes nothing and learns nothing. Subclasses override what they need."""

    name: ClassVar[str] = "base"

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """Whether `drafters="auto"` takes it, with its default options."""
        return True

    def attach(self, environment: Environment) -> None:
        """See `Drafter`."""

    def start(self, request: Request) -> bool:
        """See `Drafter`: takes up every request."""
        return True

    def propose(self, requests: Sequence[Request], budgets: Sequence[int]) -> Iterator[list[DraftTree]]:
        """See `Drafter`: here once, one request at a time."""
        yield [self.propose_one(request, budget) for request, budget in zip(requests, budgets, strict=True)]

    def propose_one(self, request: Request, budget: int) -> DraftTree:
        """A tree of at most `budget` nodes for one request."""
        raise NotImplementedError

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`."""

    def finish(self, request: Request) -> None:
        """See `Drafter`."""

    def close(self) -> None:
        """See `Drafter`."""


def register(name: str) -> Callable[[DrafterClass], DrafterClass]:
    """Class decorator that enters a drafter under `name`."""

    def enter(cls: DrafterClass) -> DrafterClass:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def option(default: Any, *, help: str, ge: float | None = None, le: float | None = None) -> Any:
    """A dataclass field that is an option of the drafter, with its bounds."""
    return dataclasses.field(default=default, metadata={"help": help, "ge": ge, "le": le})


def available() -> dict[str, type[BaseDrafter]]:
    """The registered drafters by name."""
    return dict(sorted(_REGISTRY.items()))


def automatic(environment: Environment) -> list[str]:
    """The names of the drafters that need no choice; the pacer finds out which of them pay."""
    return [name for name, cls in available().items() if cls.is_automatic(environment)]


def options_of(cls: type[BaseDrafter]) -> list[dataclasses.Field[Any]]:
    """The option fields of a drafter, in order."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    return [f for f in fields if "help" in f.metadata]


def make(spec: str | Drafter) -> Drafter:
    """A drafter from `name` or `name:key=value,key=value`; an object passes through."""
    if not isinstance(spec, str):
        return spec
    name, _, rest = spec.partition(":")
    if name not in _REGISTRY:
        raise ConfigError(f"unknown drafter {name!r}; allowed: {', '.join(available())}")
    cls = _REGISTRY[name]
    known = {f.name: f for f in options_of(cls)}
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, text = part.partition("=")
        if key not in known or not equals:
            allowed = ", ".join(f"{k}=…" for k in known)
            raise ConfigError(f"drafter {name!r} has no option {part!r}; allowed: {allowed or 'none'}")
        values[key] = _parse(name, known[key], text)
    return cls(**values)


def _parse(drafter: str, field: dataclasses.Field[Any], text: str) -> Any:
    kind: type = type(field.default)
    try:
        value = kind(text)
    except ValueError as error:
        raise ConfigError(f"{drafter}: {field.name} is {text!r}; allowed: {kind.__name__}") from error
    low, high = field.metadata["ge"], field.metadata["le"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise ConfigError(f"{drafter}: {field.name} is {value}; allowed: {bounds}")
    return value
