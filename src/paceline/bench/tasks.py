"""The tasks of `paceline bench pacer`: kinds of text between those that drafts foresee whole and noise.

The bundled model does not copy what it reads. What it does is answer alike when asked alike, so the passages to be
copied, and the earlier answers of a session, were written by the model itself: asked again, it repeats them at length,
and after an edited request in part. Noise is sampled at a temperature that makes the 64 likeliest tokens about equally
likely. The cut matters: a draft model shares the target's random numbers and foresees what these alone decide, but not
what is left of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.bundled import TASKS
from paceline.jsonl import check_keys, read_jsonl

_KEYS = frozenset({"task", "prompt", "sampling", "prediction"})
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
    return read_jsonl(path or TASKS, _task, "tasks", _WANTED)


def _task(line: dict[str, Any]) -> Task:
    check_keys(line, _KEYS)
    prediction = line.get("prediction")
    return Task(str(line["task"]), str(line["prompt"]), dict(line.get("sampling", {})), prediction and str(prediction))
