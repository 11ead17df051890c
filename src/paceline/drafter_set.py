"""The drafters of one engine: each is made once, and kept until the engine is closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from paceline.drafters import automatic, make
from paceline.drafters.base import named
from paceline.engine.request import Drafter, Environment
from paceline.errors import ConfigError
from paceline.options import Drafters


class DrafterSet:
    """Makes drafters by what a caller names. One thread at a time may use it.

    Args:
        environment: what drafters may know of their engine.
        on_attached: told of each drafter that has been made and attached.
    """

    def __init__(self, environment: Environment, on_attached: Callable[[Drafter], None]) -> None:
        self._environment, self._on_attached = environment, on_attached
        self._made: dict[str, Drafter] = {}
        self._of_models: dict[int, tuple[object, DrafterSet]] = {}  # draft models of single calls, by their ids

    def resolve(self, drafters: Drafters) -> tuple[Drafter, ...]:
        """Drafter objects for "auto", "none", a name, or a list."""
        asked = _listed(drafters)
        if "none" in asked:
            if len(asked) > 1:
                raise ConfigError("drafters has 'none' beside others; allowed: 'none' alone")
            return ()
        own = [spec for spec in asked if spec != "auto"]
        if len(own) < len(asked):
            kinds = _kinds(own)
            own = [*(name for name in automatic(self._environment) if name not in kinds), *own]
        chosen: dict[str, Drafter] = {}
        for spec in own:
            if not any(spec is drafter for drafter in chosen.values()):
                drafter = self._drafter(spec, chosen)
                chosen[drafter.name] = drafter
        return tuple(chosen.values())

    def joined(self, drafters: Drafters) -> Drafters:
        """Those that are asked for, and those that are automatic only since there is a draft model, or a head."""
        asked = [spec for spec in _listed(drafters) if spec != "none"]
        known = self._of_companions()
        return asked if "auto" in asked else [*asked, *(name for name in known if name not in _kinds(asked))]

    def of_draft_model(self, model: object) -> tuple[Drafter, ...]:
        """Those that are automatic only since there is a draft model, made for this one."""
        if id(model) not in self._of_models:
            environment = replace(self._environment, draft_model=model, head=None, head_kind="")
            self._of_models[id(model)] = (model, DrafterSet(environment, self._on_attached))
        _, own = self._of_models[id(model)]
        return own.resolve(own._of_companions())

    def close(self) -> None:
        """Release what the drafters hold; nothing is made any more."""
        for _, own in self._of_models.values():
            own.close()
        self._of_models.clear()
        for drafter in self._made.values():
            drafter.close()
        self._made.clear()
        self._environment = replace(self._environment, host=None)  # it holds the model, as the other does
        del self._on_attached

    def _of_companions(self) -> list[str]:
        """The drafters that are automatic only since there is a draft model, or a head."""
        without = automatic(replace(self._environment, draft_model=None, head_kind=""))
        return [name for name in automatic(self._environment) if name not in without]

    def _drafter(self, spec: str | Drafter, taken: Collection[str]) -> Drafter:
        """A drafter that has been attached, by a name that none of its companions has."""
        key = spec if isinstance(spec, str) else f"object {id(spec)}"
        known = self._made.get(key)
        if known is not None:
            return named(known, taken)
        drafter = named(make(spec), taken)
        drafter.attach(self._environment)
        self._on_attached(drafter)
        self._made[key] = drafter
        return drafter


def _listed(drafters: Drafters) -> list[str | Drafter]:
    return [drafters] if isinstance(drafters, str) else list(drafters)


def _kinds(specs: Sequence[str | Drafter]) -> set[str]:
    """The names before the options; an object is no kind, but itself."""
    return {spec.partition(":")[0] for spec in specs if isinstance(spec, str)}
