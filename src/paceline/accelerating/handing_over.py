"""What is handed over to transformers' own `generate`, and how that is said."""

from __future__ import annotations

import warnings


class HandedOverWarning(UserWarning):
    """A call was decoded by transformers' own `generate`, and why; what it returns is right, and no sooner."""


class HandOver(Exception):
    """Something that is asked for, and why it is not done here."""

    def __init__(self, asked: str, why: str) -> None:
        super().__init__(f"{asked} is left to transformers' own generate: {why}")


def tell(reason: HandOver) -> None:
    """Warn the caller of `generate`."""
    warnings.warn(str(reason), HandedOverWarning, stacklevel=3)
