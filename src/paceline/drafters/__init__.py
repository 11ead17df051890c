"""Drafters, one file each. Importing this package fills the registry.

A new drafter is one file beside these, with `@register`; docs/add-a-drafter.md walks through it.
"""

from __future__ import annotations

import importlib
import pkgutil

from paceline.drafters.base import BaseDrafter, automatic, available, make, named, option, register

__all__ = ["BaseDrafter", "automatic", "available", "make", "named", "option", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
