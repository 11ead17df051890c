"""A run on disk: one safetensors file, replaced in one move, that holds all it takes to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from paceline.errors import ConfigError

Weights = dict[str, torch.Tensor]


@dataclass
class Progressed:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0  # of training and evaluation, over all calls
    epoch: int = 0
    place: int = 0  # the next sequence of the epoch
    loss: float = 0.0
    best: float = 0.0  # tau
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def save(path: Path, tensors: Weights, state: Progressed, about: Mapping[str, Any]) -> None:
    """Write a run. `about` is what it was begun with: see `restore`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    whole = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    save_file(whole, part, metadata={"state": json.dumps(asdict(state)), "about": json.dumps(about)})
    os.replace(part, path)


def restore(path: Path, tensors: Weights, about: Mapping[str, Any]) -> Progressed:
    """Fill tensors from a run's file, if there is one.

    Raises:
        ConfigError: it was begun with other choices, or cannot be read.
    """
    if not path.exists():
        return Progressed()
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            metadata = file.metadata()
            _check(path, json.loads(metadata["about"]), json.loads(json.dumps(about)))
            for name, value in tensors.items():
                value.copy_(file.get_tensor(name))
            return Progressed(**json.loads(metadata["state"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"cannot go on from {str(path)!r} ({error}); allowed: another folder, or --fresh") from error


def _check(path: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    other = sorted(name for name in {*begun, *now} if begun.get(name) != now.get(name))
    if other:
        what = ", ".join(f"{name} {begun.get(name)!r}, not {now.get(name)!r}" for name in other)
        raise ConfigError(f"the run in {str(path)!r} was begun with {what}; allowed: the same, or --fresh")
