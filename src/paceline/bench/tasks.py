"""The tasks of `paceline bench pacer`: kinds of text between those that drafts foresee whole and noise.

The bundled model does not copy what it reads. What it does is answer alike when asked alike, so the passages to be
copied, and the earlier answers of a session, were written by the model itself: asked again, it repeats them at length,
and after an edited request in part. Noise is sampled at a temperature that makes the 64 likeliest tokens about equally
likely. The cut matters: a draft model shares the target's random numbers and foresees what these alone decide, but not
what is left of the vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.bundled import TASKS
from paceline.errors import ConfigError

_KEYS = {"task", "prompt", "sampling", "prediction"}
_WANTED = 'a file of lines {"task": ..., "prompt": ...}, with "sampling": {...} and "prediction": "..." as one likes'


@dataclass(frozen=True)
class Task:
    """One prompt of a task, the sampling parameters that belong to it, and a text its output may resemble."""

    task: str
    prompt: str
    sampling: dict[str, Any] = field(default_factory=dict)  # as `LLM.generate` takes them
    prediction: str | None = None


def read_tasks(path: Path | None) -> list[Task]:
    """Tasks from `{"task": ..., "prompt": ...}` lines; None is the file that comes with Paceline.

    Raises:
        ConfigError: a file that cannot be read, a line that is not of this form, or no line at all.
    """
    path = path or TASKS
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        tasks = [_task(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read tasks from {str(path)!r} ({error}); allowed: {_WANTED}") from error
    if not tasks:
        raise ConfigError(f"{str(path)!r} has no tasks; allowed: at least one line")
    return tasks


def _task(line: dict[str, Any]) -> Task:
    unknown = sorted(set(line) - _KEYS)
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")
    prediction = line.get("prediction")
    return Task(str(line["task"]), str(line["prompt"]), dict(line.get("sampling", {})), prediction and str(prediction))
