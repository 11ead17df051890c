from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from paceline.bench.tasks import Task, read_tasks
from paceline.bundled import DEFAULT_TARGET, TASKS, bundled_path
from paceline.errors import ConfigError

NAMES = {"story", "story-0.8", "story-1", "copy", "edit", "command", "command-grammar", "maths", "session", "noise"}
ROOM = 2048 - 256  # tokens of a prompt that leave room for an output


def of(name: str) -> list[Task]:
    return [task for task in read_tasks(None) if task.task == name]


def lengths(tasks: list[Task]) -> list[int]:
    tokenizer = Tokenizer.from_file(f"{bundled_path(DEFAULT_TARGET)}/tokenizer.json")
    return [len(tokenizer.encode(task.prompt)) for task in tasks]


def test_every_task_has_a_few_prompts() -> None:
    counts = Counter(task.task for task in read_tasks(None))
    assert counts.keys() == NAMES
    assert min(counts.values()) >= 3
    assert TASKS.stat().st_size < 60_000


def test_prompts_differ_and_fit() -> None:
    tasks = read_tasks(None)
    assert len({(task.task, task.prompt) for task in tasks}) == len(tasks)
    assert max(lengths(tasks)) <= ROOM


@pytest.mark.parametrize("names", [("copy", "edit"), ("session",)])
def test_what_copies_is_long(names: tuple[str, ...]) -> None:
    assert sum(300 <= length <= 1000 for name in names for length in lengths(of(name))) >= 2


def test_predictions_stand_in_the_prompt() -> None:
    predicted = [task for task in read_tasks(None) if task.prediction is not None]
    assert {task.task for task in predicted} == {"copy", "edit"}
    assert all(task.prediction in task.prompt for task in predicted if task.prediction)


def test_grammars_are_given_where_the_name_says_so() -> None:
    with_grammar = {task.task for task in read_tasks(None) if "response_format" in task.sampling}
    assert with_grammar == {"command-grammar"}
    prompts = {task.prompt for task in of("command")}
    for task in of("command-grammar"):
        assert task.prompt in prompts
        schema = task.sampling["response_format"]["json_schema"]["schema"]
        assert len(schema["properties"]["intent"]["enum"]) == 7
        assert schema["required"] == ["intent", "slots"]


def test_hot_stories_are_those_of_temperature_0() -> None:
    prompts = [task.prompt for task in of("story")]
    for name, temperature in (("story-0.8", 0.8), ("story-1", 1.0)):
        assert [task.prompt for task in of(name)] == prompts
        assert {task.sampling["temperature"] for task in of(name)} == {temperature}


def test_noise_is_hot_and_cut_and_seeded() -> None:
    for task in of("noise"):
        assert task.sampling["temperature"] >= 50
        assert task.sampling["top_k"] == 64
        assert "seed" in task.sampling


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        '{"task": "a", "prompt": "b"}\n\n'
        '{"task": "c", "prompt": "d", "sampling": {"temperature": 0.5}, "prediction": "e"}\n'
    )
    assert read_tasks(path) == [Task("a", "b"), Task("c", "d", {"temperature": 0.5}, "e")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no tasks"),
        ("not json", "cannot read tasks"),
        ("[1]", "cannot read tasks"),
        ('{"task": "a"}', "'prompt'"),
        ('{"task": "a", "prompt": "b", "temperature": 1}', "unknown keys: temperature"),
        ('{"task": "a", "prompt": "b", "sampling": 3}', "cannot read tasks"),
    ],
)
def test_files_that_make_no_sense_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_tasks(path)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: a file of lines"):
        read_tasks(tmp_path / "none.jsonl")
