"""What is asked: the bundled tasks, a file of prompts, or random tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from paceline.bench.tasks import Task, read_tasks
from paceline.errors import ConfigError
from paceline.jsonl import read_jsonl

TASKS, CUSTOM, RANDOM = "tasks", "custom", "random"
DATASETS = (TASKS, CUSTOM, RANDOM)
_LINE = 'a file of lines {"prompt": "..."}, with "output_tokens": N as one likes'


@dataclass(frozen=True)
class ServePrompt:
    """One request's prompt, as text or as token ids, and what belongs in its body."""

    label: str
    prompt: str | tuple[int, ...]
    max_tokens: int
    fields: Mapping[str, Any] = field(default_factory=dict)


def task_prompts(path: Path | None, output_len: int, ignore_eos: bool) -> list[ServePrompt]:
    """The tasks of `paceline bench pacer`, one of each kind after the other, with their own sampling parameters."""
    kinds: dict[str, list[Task]] = {}
    for task in read_tasks(path):
        kinds.setdefault(task.task, []).append(task)
    mixed = [task for turn in zip_longest(*kinds.values()) for task in turn if task is not None]
    return [ServePrompt(task.task, task.prompt, output_len, _fields(task, ignore_eos)) for task in mixed]


def _fields(task: Task, ignore_eos: bool) -> dict[str, Any]:
    fields = dict(task.sampling)
    if task.prediction:
        fields["prediction"] = {"type": "content", "content": task.prediction}
    if ignore_eos and "response_format" not in fields:  # a grammar ends where its text is complete
        fields["ignore_eos"] = True
    return fields


def custom_prompts(path: Path | None, output_len: int, ignore_eos: bool) -> list[ServePrompt]:
    """The lines of a file as `vllm bench serve --dataset-name custom` reads them; `output_tokens` of a line wins.

    Raises:
        ConfigError: there is no file, or a line without a prompt.
    """
    if path is None:
        raise ConfigError(f"dataset-path is missing; allowed with custom: {_LINE}")
    fields = {"ignore_eos": True} if ignore_eos else {}

    def made(line: dict[str, Any]) -> ServePrompt:
        return ServePrompt(CUSTOM, str(line["prompt"]), int(line.get("output_tokens", output_len)), fields)

    return read_jsonl(path, made, "prompts", _LINE)


@dataclass(frozen=True)
class RandomSizes:
    """Random prompts: how many tokens each has, and how many are asked for."""

    input_len: int = 256
    output_len: int = 64


def random_prompts(count: int, sizes: RandomSizes, ids: Sequence[int], seed: int) -> list[ServePrompt]:
    """Prompts of tokens drawn from `ids`, which the server's tokenizer has named; only `output_len` ends them."""
    draw, known = Random(seed), sorted(set(ids))
    prompts = [tuple(draw.choices(known, k=sizes.input_len)) for _ in range(count)]
    return [ServePrompt(RANDOM, prompt, sizes.output_len, {"ignore_eos": True}) for prompt in prompts]


def repeated(prompts: Sequence[ServePrompt], count: int) -> list[ServePrompt]:
    """As many as asked for, from the first one again where there are fewer."""
    return list(islice(cycle(prompts), count))
