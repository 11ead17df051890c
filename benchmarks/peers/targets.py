"""Checkpoints that every peer loads, in the user's cache folder; a folder's name has a digest of what went into it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.bundled.grow import SIZES, Growth, inflate
from paceline.errors import ConfigError
from paceline.model.pretrained import read_model

BUNDLED, INFLATED = "bundled", "inflated"
_GROWN = {INFLATED: SIZES["134m"], f"{INFLATED}-1b": SIZES["1b"]}
_KNOWN = (BUNDLED, *_GROWN)  # anything else is a folder
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def checkpoint(name: str, dtype: str, cache: Path) -> Path:
    """A folder with a target's weights in a dtype."""
    source = bundled_path(DEFAULT_TARGET) if name in _KNOWN else Path(name)
    assert source is not None
    return _write(source, dtype, cache, _GROWN.get(name))


def draft_checkpoint(name: str, dtype: str, cache: Path) -> Path | None:
    """A folder with the draft model of a target; None if it has none."""
    source = bundled_path(DEFAULT_DRAFT) if name in _KNOWN else None
    return _write(source, dtype, cache, None) if source is not None else None


def _write(source: Path, dtype: str, cache: Path, growth: Growth | None) -> Path:
    if not (source / "config.json").is_file():
        raise ConfigError(f"the target {str(source)!r} has no config.json; allowed: {', '.join(_KNOWN)}, or a folder")
    label = f"{source.name}-{INFLATED}" if growth else source.name
    place = cache / f"{label}-{dtype}-{_digest(source, dtype, repr(growth))}"

    def fill(folder: Path) -> None:
        model = read_model(str(source), getattr(torch, dtype), torch.device("cpu"))
        (inflate(model, growth) if growth else model).save_pretrained(folder)
        for file in _TOKENIZER_FILES:
            shutil.copy(source / file, folder / file)

    return made_once(place, fill)


def made_once(place: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that `fill` has filled, now or in an earlier run; one left unfinished is made anew."""
    if not place.exists():
        partial = place.with_name(place.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        partial.rename(place)
    return place


def _digest(source: Path, *settings: str) -> str:
    digest = hashlib.sha256("\n".join(settings).encode())
    for path in sorted(source.glob("*.json")) + sorted(source.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
