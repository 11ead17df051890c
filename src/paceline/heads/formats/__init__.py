"""Heads as others publish them, one file for each layout. A further layout is one file with a `LAYOUT` in it."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paceline.errors import ModelError
from paceline.heads.formats._files import HeadFiles
from paceline.heads.formats._layout import Layout

__all__ = ["FoundHead", "layouts", "open_head"]


@dataclass(frozen=True)
class FoundHead:
    """A head that was found in a folder. It says itself of which kind it is, whoever asked for it."""

    kind: str  # the name of the drafter that runs it: "block", "eagle", "medusa" or "mtp"
    layout: str  # in which its writer laid it out
    module: Any  # `BlockHead`, `ChainedHead` or `MedusaHead`, its weights as stored; not bound to a target yet
    vocabularies: tuple[torch.Tensor, ...]  # (num_logits,) each: readings of its list of tokens; none: all tokens
    digest: str  # of its configuration and every byte of its weights
    made_for: str  # the target that its configuration names; empty without one


def layouts() -> list[Layout]:
    """All that there are, by the names of their files."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [module.LAYOUT for module in modules if hasattr(module, "LAYOUT")]


def open_head(folder: str | os.PathLike[str]) -> FoundHead:
    """The head in a folder.

    Raises:
        ModelError: there is none, it is laid out in no way that is known, or its weights are not those that it needs.
    """
    files = HeadFiles(Path(folder).expanduser())
    fitting = [layout for layout in layouts() if layout.fits(files)]
    if len(fitting) != 1:
        said = files.speculators_type or ", ".join(files.architectures) or "nothing"
        known = ", ".join(layout.name for layout in layouts())
        raise ModelError(f"{str(folder)!r} says of itself {said!r}, which is no head that is known; allowed: {known}")
    opened = fitting[0].open(files)
    kind = getattr(opened.module, "kind", "block")
    digest = _digest(files, opened.module)
    return FoundHead(kind, fitting[0].name, opened.module, tuple(opened.vocabularies), digest, _made_for(files))


def _digest(files: HeadFiles, module: torch.nn.Module) -> str:
    found = hashlib.sha256(json.dumps(files.config, sort_keys=True).encode())
    for name, weight in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        found.update(weight.contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _made_for(files: HeadFiles) -> str:
    verifier = files.part("speculators_config").get("verifier")
    named = verifier.get("name_or_path") if isinstance(verifier, dict) else files.config.get("base_model_name_or_path")
    return str(named or "")
