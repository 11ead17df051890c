"""The prompts that everybody gets: bundled tasks, turned into tokens once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from paceline.bench.tasks import read_tasks
from paceline.errors import ConfigError
from paceline.text.tokenizer import Tokenizer
from peers.measure import Prompt


def prompts_of(folder: Path, tasks: Sequence[str], per_task: int, room: int) -> list[Prompt]:
    """Some prompts of each task that leave `room` positions of the model, spread evenly over those there are.

    A task none of whose prompts fits is left out.

    Raises:
        ConfigError: a task that does not exist, or that is nothing without its own sampling parameters.
    """
    texts = _texts(tasks)
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(folder))
    longest = AutoConfig.from_pretrained(folder).max_position_embeddings - room
    found: list[Prompt] = []
    for task in tasks:
        fitting = [ids for text in texts[task] if len(ids := tokenizer.encode(text)) <= longest]
        count = min(per_task, len(fitting))
        found += [Prompt(task, tuple(fitting[i * len(fitting) // count])) for i in range(count)]
    return found


def _texts(tasks: Sequence[str]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for line in read_tasks(None):
        if not line.sampling:
            texts.setdefault(line.task, []).append(line.prompt)
    unknown = [task for task in tasks if task not in texts]
    if unknown:
        raise ConfigError(f"unknown task {unknown[0]!r}; allowed: {', '.join(texts)}")
    return texts
