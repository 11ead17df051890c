"""Prompt sets: recognised by what they hold, whatever they are called; refused with a reason."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paceline.bundled import PROMPTS, TASKS
from paceline.errors import ConfigError
from paceline.text.prompt_formats import FORMATS, Prompt
from paceline.text.prompt_sets import PromptSet, read_prompt_set

SHARED = Path(__file__).parents[3] / "shared"

SPEC_BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."], "reference": []},
    {"question_id": 161, "category": "qa", "turns": ["Who?"]},
]
SPEED_BENCH = [
    {
        "question_id": "q1",
        "category": "coding",
        "sub_category": None,
        "turns": ["Sort this.", "Faster."],
        "source": "x",
        "src_id": "1",
        "difficulty": None,
        "multiturn": True,
    }
]
HUMAN_EVAL = [
    {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "", "test": ""},
]
GSM8K = [{"question": "How many?", "answer": "#### 3"}, {"question": "How long?", "answer": "#### 4"}]
OWN = [{"category": "story", "prompt": "Once"}, {"category": "story", "prompt": " upon"}]
OWN_TASKS = [{"task": "noise", "prompt": "x", "sampling": {"temperature": 50.0}, "prediction": "y"}]

KNOWN: dict[str, tuple[str, list[dict[str, Any]], list[Prompt]]] = {
    "spec-bench": (
        "Spec-Bench or MT-Bench",
        SPEC_BENCH,
        [Prompt("writing", ("Write.", "Again.")), Prompt("qa", ("Who?",))],
    ),
    "speed-bench": ("SPEED-Bench", SPEED_BENCH, [Prompt("coding", ("Sort this.", "Faster."))]),
    "humaneval": ("HumanEval", HUMAN_EVAL, [Prompt("humaneval", ("def f(x):\n",))]),
    "gsm8k": ("GSM8K", GSM8K, [Prompt("gsm8k", ("How many?",)), Prompt("gsm8k", ("How long?",))]),
    "own": ("prompts", OWN, [Prompt("story", ("Once",)), Prompt("story", (" upon",))]),
    "tasks": ("tasks", OWN_TASKS, [Prompt("noise", ("x",))]),
}


def write(path: Path, content: str, is_packed: bool = False) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if is_packed else data)
    return path


def lines_of(lines: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_a_form_is_known_by_its_keys_whatever_the_file_is_called(name: str, is_packed: bool, tmp_path: Path) -> None:
    form, lines, prompts = KNOWN[name]
    found = read_prompt_set(write(tmp_path / "anything.txt", f"\ufeff{lines_of(lines)}\n\n", is_packed))
    assert (found.format, list(found.prompts)) == (form, prompts)


def test_every_form_has_a_sample_here() -> None:
    assert {form.name for form in FORMATS} == {form for form, _, _ in KNOWN.values()}


def test_plain_text_is_a_prompt_per_paragraph(tmp_path: Path) -> None:
    text = "One line,\nand another.\r\n \t\r\nSecond: naïve — 字\n\n\n\n[1] third"
    found = read_prompt_set(write(tmp_path / "text.jsonl", text))
    assert found.format == "plain text"
    assert [prompt.text for prompt in found.prompts] == ["One line,\nand another.", "Second: naïve — 字", "[1] third"]
    assert {prompt.category for prompt in found.prompts} == {"text"}


def test_what_is_bundled_has_names() -> None:
    assert read_prompt_set("bundled").prompts == read_prompt_set(PROMPTS).prompts
    assert read_prompt_set("tasks").prompts == read_prompt_set(TASKS).prompts
    assert len(read_prompt_set("bundled").prompts) == 24


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no prompts"),
        (" \n\n", "has no prompts"),
        ('{"text": "no prompt"}', "line 1: has text; allowed"),
        ('{"question_id": 1, "category": "a", "turns": []}', "line 1: 'turns' is"),
        ('{"question_id": 1, "category": "a", "turns": "a"}', "'turns' is 'a'"),
        ('{"question_id": 1, "category": "a", "turns": ["a", 3]}', "'turns' is 3"),
        ('{"category": "a", "prompt": " "}', "'prompt' is ' '"),
        ('{"category": null, "prompt": "a"}', "'category' is None"),
        ('{"category": "a", "prompt": "\\ud800"}', "line 1"),
        ('{"category": "a", "prompt": "b"}\n{"question": "c", "answer": "d"}', "line 2: is not of the form"),
        ('{"category": "a", "prompt": "b"}\n[1]', "line 2: is not of the form"),
        ('{"category": "a", "prompt": "b"}\n\nno json', "line 3"),
        ('{\n "category": "a"}', "line 1"),
        ('{"a": ' + "[" * 100_000, "line 1"),
        (
            '{"category": "a", "sub_category": "b", "turns": '
            '["FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"]}',
            "prepare_data.py",
        ),
    ],
)
def test_files_that_make_no_sense_are_refused(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompts") as error:
        read_prompt_set(write(tmp_path / "prompts.jsonl", content))
    assert words in str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PAR1\x15\x04", "Parquet"),
        (b"caf\xe9", "not text in UTF-8"),
        (b"\x1f\x8b\x08\x00broken", "cannot read prompts"),
        (gzip.compress(b"x" * 999, mtime=0)[:-9], "cannot read prompts"),
    ],
)
def test_bytes_that_are_no_text_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_prompt_set(path)


def test_what_grows_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.text.prompt_sets._LARGEST", 2**20)
    with pytest.raises(ConfigError, match="over 1 MB"):
        read_prompt_set(write(tmp_path / "bomb.gz", "x" * (2**20 + 1), is_packed=True))
    assert read_prompt_set(write(tmp_path / "fits.gz", "x" * 2**20, is_packed=True)).prompts


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ConfigError, match="allowed: bundled, tasks, or a file"):
            read_prompt_set(wrong)


def of_categories(tmp_path: Path, categories: str, limit: int | None) -> PromptSet:
    lines = [{"category": c, "prompt": f"{c}{i}"} for i, c in enumerate(categories)]
    return read_prompt_set(write(tmp_path / "prompts", lines_of(lines)), limit)


def test_a_limit_takes_the_same_ones_every_time_in_their_order(tmp_path: Path) -> None:
    categories = "abcab" * 9
    everything = of_categories(tmp_path, categories, None)
    some = of_categories(tmp_path, categories, 3)
    assert Counter(prompt.category for prompt in some.prompts) == {"a": 3, "b": 3, "c": 3}
    assert some == of_categories(tmp_path, categories, 3)
    places = [everything.prompts.index(prompt) for prompt in some.prompts]
    assert places == sorted(places)
    assert places != list(range(9))  # not simply the first of each
    assert of_categories(tmp_path, categories, 99).prompts == everything.prompts


def test_a_limit_draws_each_category_for_itself(tmp_path: Path) -> None:
    both, alone = of_categories(tmp_path, "a" * 20 + "b" * 20, 4), of_categories(tmp_path, "a" * 20, 4)
    assert [p for p in both.prompts if p.category == "a"] == list(alone.prompts)


def test_the_digest_tells_prompts_apart_and_not_their_files(tmp_path: Path) -> None:
    one = read_prompt_set(write(tmp_path / "one", lines_of(OWN))).as_dict()
    same = read_prompt_set(write(tmp_path / "two.gz", lines_of(OWN), is_packed=True)).as_dict()
    other = read_prompt_set(write(tmp_path / "three", lines_of(OWN[:1]))).as_dict()
    assert one["digest"] == same["digest"] != other["digest"]
    assert (one["num_prompts"], other["num_prompts"]) == (2, 1)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the shared folder is not here")
@pytest.mark.parametrize(
    ("place", "form", "count", "categories", "turns"),
    [
        ("prompts/spec_bench.jsonl", "Spec-Bench or MT-Bench", 480, 13, 560),
        ("prompts/mt_bench.jsonl", "Spec-Bench or MT-Bench", 80, 8, 160),
        ("prompts/HumanEval.jsonl.gz", "HumanEval", 164, 1, 164),
        ("corpora/gsm8k/test.jsonl.gz", "GSM8K", 1319, 1, 1319),
        ("corpora/tinyshakespeare.txt", "plain text", 7222, 1, 7222),
    ],
)
def test_real_sets(place: str, form: str, count: int, categories: int, turns: int) -> None:
    found = read_prompt_set(SHARED / place)
    assert (found.format, len(found.prompts)) == (form, count)
    assert len({prompt.category for prompt in found.prompts}) == categories
    assert sum(len(prompt.turns) for prompt in found.prompts) == turns
