"""The registry of drafters, and a base class with nothing in it to repeat.

A drafter is a dataclass; its fields, made by `option`, are its options on the command line and in the API:
`suffix:max_match=8` and `register("suffix")` meet here and nowhere else. Other packages bring drafters by entry points.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import count
from typing import Any, ClassVar, TypeVar

from paceline.drafters._options import check, option, options_of, parse, unknown
from paceline.engine.request import Drafter, DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.errors import ConfigError, first_line

__all__ = ["BaseDrafter", "automatic", "available", "make", "named", "option", "options_of", "package_of", "register"]

GROUP = "paceline.drafters"  # of entry points
_VERBS = ("attach", "start", "propose", "observe", "finish", "close")
_RESERVED = ("auto", "none", "target")  # what else may stand where a drafter's name does
_REGISTRY: dict[str, type[BaseDrafter]] = {}
_PACKAGES: dict[str, str] = {}  # name of a drafter -> the package that declares it, and its version
DrafterClass = TypeVar("DrafterClass", bound="type[BaseDrafter]")


class BaseDrafter:
    """A drafter that proposes nothing and learns nothing. Subclasses override what they need."""

    name: str = "base"  # the class's own; an instance beside another of the kind has one of its own, see `named`

    reads_hidden_states: ClassVar[bool] = False  # the target's: its requests' forwards keep what heads make of them
    reads_logits: ClassVar[bool] = False  # the target's, of verified rows: a step's outcome has them
    reads_sampler: ClassVar[bool] = False  # the request's: its grammar, and the noise that its tokens are drawn with
    prior_tokens: ClassVar[float] = 1.0  # tokens that a proposal may be expected to bring, before anything is known

    @property
    def identity(self) -> str:
        """What tells it from others in other processes too: what is learnt of it is kept under this, or not if empty.

        Its kind and its options; a class that is no dataclass may be made of anything.
        """
        options = [f"{field.name}={getattr(self, field.name)!r}" for field in options_of(type(self))]
        return f"{type(self).name}({', '.join(options)})" if is_dataclass(self) else ""

    def __post_init__(self) -> None:
        """ConfigError if an option is out of bounds."""
        for field in options_of(type(self)):
            check(self.name, field, getattr(self, field.name))

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """Whether `drafters="auto"` takes it, with its default options.

        What reads hidden states needs a target that shows them, and a head of its kind that is known for it.
        """
        return not cls.reads_hidden_states or (environment.host is not None and environment.head_kind == cls.name)

    def attach(self, environment: Environment) -> None:
        """See `Drafter`."""

    def start(self, request: Request) -> bool:
        """See `Drafter`: takes up every request."""
        return True

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """See `Drafter`: here one request at a time."""
        return [self.propose_one(request, limit) for request, limit in zip(requests, limits, strict=True)]

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """A tree for one request, within the limits."""
        raise NotImplementedError

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`."""

    def finish(self, request: Request) -> None:
        """See `Drafter`."""

    def rest(self) -> bool:
        """Nothing is decoded: do what can wait, in a few milliseconds; whether there is more of it."""
        return False

    def learnt(self) -> Mapping[str, int]:
        """What has become of learning while serving, in counts by name."""
        return {}

    def close(self) -> None:
        """See `Drafter`."""


def register(name: str) -> Callable[[DrafterClass], DrafterClass]:
    """Class decorator that enters a drafter under `name`. The same class, defined again, takes its own place.

    Raises:
        ConfigError: the name is another's, or no name.
    """
    if not re.fullmatch(r"[\w-]+", name) or name in _RESERVED:
        raise ConfigError(
            f"the name of a drafter is {name!r}; allowed: letters, digits, - and _, but not {', '.join(_RESERVED)}"
        )

    def enter(cls: DrafterClass) -> DrafterClass:
        holder, old = _REGISTRY.get(name, cls), next((n for n, c in _REGISTRY.items() if c is cls), name)
        if _place_of(holder) != _place_of(cls):
            what = f"the name {name!r} is taken by {_place_of(holder)}"
            raise ConfigError(f"{what}; allowed: another name for {_place_of(cls)}")
        if old != name:
            raise ConfigError(f"{_place_of(cls)} is to be named {name!r}; allowed: its name, {old!r}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return enter


def available() -> dict[str, type[BaseDrafter]]:
    """All drafters by name. Those of other packages are imported; what cannot be is left out with a warning."""
    for entry in entry_points(group=GROUP):
        try:
            _load(entry)
        except ConfigError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return dict(sorted(_REGISTRY.items()))


def automatic(environment: Environment) -> list[str]:
    """The names of the drafters that need no choice; the pacer finds out which of them pay.

    Those of other packages are not among them: what is merely installed does not run unless it is named.
    """
    own = [(name, cls) for name, cls in sorted(_REGISTRY.items()) if name not in _PACKAGES]
    return [name for name, cls in own if cls.is_automatic(environment)]


def package_of(name: str) -> str | None:
    """The package that a drafter of `available` comes from, with its version; None if it is ours or was registered."""
    return _PACKAGES.get(name)


def make(spec: str | Drafter, **options: Any) -> Drafter:
    """A drafter from `name` or `name:option=value,option=value`, from a name and keywords, or an object as it is.

    `make("corpus:path=docs,min_match=3")` is `make("corpus", path="docs", min_match=3)`.

    Raises:
        ConfigError: there is no such drafter or option, a value is not allowed, or an object is no drafter.
    """
    if not isinstance(spec, str):
        _check_object(spec, options)
        return spec
    name, _, text = spec.partition(":")
    cls = _class_of(name)
    known = options_of(cls)
    names = [field.name for field in known]
    for key in options:
        if key not in names:
            raise unknown(name, key, names)
    return cls(**{**parse(name, known, text), **options})


def named(drafter: Drafter, taken: Collection[str]) -> Drafter:
    """The drafter, by a name that is not taken: its own, else the first of `model-2`, `model-3` ... that is free.

    Beliefs, costs and statistics go by name, so no two drafters of an engine may share one.
    """
    if drafter.name in taken:
        free = next(name for name in (f"{drafter.name}-{n}" for n in count(2)) if name not in taken)
        try:
            object.__setattr__(drafter, "name", free)
        except AttributeError as error:
            what = f"{type(drafter).__name__} is named {drafter.name!r} as another drafter is, and its name is fixed"
            raise ConfigError(f"{what}; allowed: names that differ") from error
    return drafter


def _load(entry: EntryPoint) -> None:
    """Enter the drafter of a package. ConfigError, with the package and the cause, if that cannot be."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    if _PACKAGES.get(entry.name) == package:
        return
    try:
        cls = entry.load()
        if not (isinstance(cls, type) and issubclass(cls, BaseDrafter)):
            raise ConfigError(f"{entry.value} is {cls!r}; allowed: a subclass of BaseDrafter")
        register(entry.name)(cls)
    except Exception as error:
        cause = first_line(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"the drafter {entry.name!r} of the package {package} cannot be had: {cause}") from error
    _PACKAGES[entry.name] = package


def _class_of(name: str) -> type[BaseDrafter]:
    if name not in _REGISTRY:
        for entry in entry_points(group=GROUP, name=name):
            _load(entry)
    if name not in _REGISTRY:
        raise ConfigError(f"unknown drafter {name!r}; allowed: {', '.join(available())}")
    return _REGISTRY[name]


def _place_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _check_object(drafter: object, options: Collection[str]) -> None:
    missing = [verb for verb in _VERBS if not callable(getattr(drafter, verb, None))]
    if isinstance(drafter, type) or missing or not isinstance(getattr(drafter, "name", None), str):
        raise ConfigError(
            f"a drafter is {drafter!r}; allowed: a name, a name with options, or an object with a name and the "
            f"methods {', '.join(_VERBS)}"
        )
    if options:
        raise ConfigError(f"{', '.join(options)} given beside an object; allowed: options beside a name")
