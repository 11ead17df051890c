"""How a command ends that has made a certificate, of whatever kind: files, words, exit code."""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any, NoReturn, Protocol

import typer

from paceline.errors import ConfigError

Found = dict[str, Any]


class Certificate(Protocol):
    """What all of them are."""

    @property
    def verdict(self) -> str:
        """PASS, FAIL or VOID."""

    def as_dict(self) -> Found:
        """Ready for JSON."""


def conclude(
    certificate: Certificate, place: Path, page: Callable[[Found], str], show: Callable[[Found, Path], None] | None
) -> NoReturn:
    """Write a certificate's page, and the JSON object beside it; show it, or print the object; exit by its verdict."""
    found = certificate.as_dict()
    try:
        place.with_suffix(".json").write_text(dumps(found, indent=1) + "\n", encoding="utf-8")
        place.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {str(place)!r}: {error}") from error
    if show is None:
        print(dumps(found))
    else:
        show(found, place)
    raise typer.Exit(0 if certificate.verdict == "PASS" else 1)
