"""The table of planted faults, and what its entries share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from faults.checks import Check

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


@dataclass(frozen=True)
class Fault:
    """How a fault is planted, and the checks that must fail then."""

    plant: Plant
    caught_by: tuple[Check, ...]


FAULTS: dict[str, Fault] = {}
HARMLESS: dict[str, Plant] = {}  # the same tools with nothing broken: no check may fail


def fault(name: str, *caught_by: Check) -> Callable[[Plant], Plant]:
    """Enters a fault."""

    def enter(plant: Plant) -> Plant:
        FAULTS[name] = Fault(plant, caught_by)
        return plant

    return enter


def harmless(name: str) -> Callable[[Plant], Plant]:
    """Enters a plant that breaks nothing."""

    def enter(plant: Plant) -> Plant:
        HARMLESS[name] = plant
        return plant

    return enter


def children_of(tree, node: int) -> list[int]:
    """The nodes below a node of a draft tree."""
    return [i for i, parent in enumerate(tree.parents) if parent == node]
