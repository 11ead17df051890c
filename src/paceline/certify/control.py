"""A fault that was planted, and whether a check found it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Control:
    """A planted fault, the check that must fail on it, and whether it did."""

    name: str
    planted: str
    check: str  # "same bytes" or "right law", or the name of a check between servers
    is_caught: bool
    found: str  # how it showed, in words
    cause: str = ""  # of the first divergence
    dtype: str = ""
