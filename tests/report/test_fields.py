"""Fields of answers: found, judged, and given the tokens that spell them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from paceline.bundled import COMMANDS
from paceline.errors import ConfigError
from paceline.report.evaluate import evaluate, judge
from paceline.report.fields import Command, Field, fields_of, read_commands, tokens_within
from report.support import decoded, saying

SNIPS = Path(__file__).parents[3] / "shared" / "corpora" / "snips"
BOOK = Command("book a table for two", "BookRestaurant", {"party_size_number": "two", "restaurant_type": "bar"})


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (' {"intent": "PlayMusic", "slots": {"artist": "A"}}', [("intent", "PlayMusic"), ("artist", "A")]),
        ('{"intent": "X", "slots": {}}', [("intent", "X")]),
        ('{"intent": "X", "slots": {"a": "b", "a": "c"', [("intent", "X"), ("a", "b"), ("a", "c")]),
        ('{"name": "say \\"hi\\" \\u00e9"}', [("name", 'say "hi" é')]),
        ('{"name" :\n"two\nlines"}', [("name", "two\nlines")]),
        ('{"name": "bad \\x"}', [("name", "bad \\x")]),
        ('{"open": "never closed', []),
        ("no JSON at all", []),
    ],
)
def test_fields_are_found_whether_or_not_the_rest_is_json(answer, found) -> None:
    fields = fields_of(answer)
    assert [(field.name, field.value) for field in fields] == found
    for field in fields:
        assert answer[field.start] == answer[field.end - 1] == '"'


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(0, 2, [0]), (1, 3, [0, 2]), (2, 5, [2]), (2, 6, [2, 3]), (0, 9, [0, 2, 3]), (9, 9, [])],
)
def test_tokens_within_are_those_with_a_character_inside(start, end, inside) -> None:
    assert tokens_within(["ab", "", "cde", "f"], start, end) == inside


def test_a_field_is_judged_by_the_truth_and_as_unsure_as_its_worst_token() -> None:
    texts = [
        ' {"',
        'intent": "Book',
        "Restaurant",
        '", "slots": {',
        '"restaurant_type": "',
        'inn", "sort": "',
        'x"',
        "}}",
    ]
    output = saying(texts, [9.0, 0.5, 0.25, 9.0, 1.0, 3.0, 2.0, 9.0])
    entries = judge(BOOK, output)
    assert [(e.field.name, e.field.value, e.expected, e.is_error) for e in entries] == [
        ("intent", "BookRestaurant", "BookRestaurant", False),
        ("restaurant_type", "inn", "bar", True),
        ("sort", "x", "nothing", True),
    ]
    assert [e.uncertainty["entropy"] for e in entries] == [9.0, 3.0, 3.0]
    assert entries[0].uncertainty["margin"] == -0.25
    assert entries[0].uncertainty["disagreement"] == 0.0


def test_the_bundled_commands_are_held_out_and_of_every_intent() -> None:
    commands = read_commands(COMMANDS)
    assert len(commands) == 140
    assert len({command.text for command in commands}) == 140
    assert {sum(c.intent == intent for c in commands) for intent in {c.intent for c in commands}} == {20}
    assert commands[0].prompt.startswith("Command: ")
    assert commands[0].prompt.endswith("\nJSON:")
    assert COMMANDS.stat().st_size < 40_000


def utterances(path: Path) -> set[str]:
    raw = gzip.decompress(path.read_bytes())
    try:
        content = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:  # one of the files is Latin-1
        content = json.loads(raw.decode("latin-1"))
    [examples] = content.values()
    return {" ".join("".join(piece["text"] for piece in example["data"]).split()) for example in examples}


@pytest.mark.skipif(not SNIPS.is_dir(), reason="the shared folder is not here")
def test_the_bundled_commands_are_none_that_the_model_was_trained_on() -> None:
    trained = set().union(*map(utterances, SNIPS.glob("train_*.gz")))
    held_out = set().union(*map(utterances, SNIPS.glob("validate_*.gz")))
    bundled = {command.text for command in read_commands(COMMANDS)}
    assert len(trained) > 13_000
    assert bundled <= held_out
    assert not bundled & trained


@pytest.mark.parametrize("text", ["", "{}", '{"command": "a", "intent": "b", "slots": 3}', "no json"])
def test_commands_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "commands.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="commands"):
        read_commands(path)
    with pytest.raises(ConfigError, match="cannot read commands"):
        read_commands(tmp_path / "none.jsonl")


def test_the_evaluation_of_the_bundled_model_tells_errors_from_right_fields(forced) -> None:
    told = []
    found = evaluate(forced, read_commands(COMMANDS)[::10], lambda: told.append(1))
    assert found.num_commands == len(told) == 14
    assert 0.0 < found.error_rate < 1.0
    assert found.least_aurc < found.scores[0].aurc < found.error_rate
    entropy = found.scores[0]
    assert entropy.measure == "entropy"
    assert entropy.auroc > 0.8
    assert entropy.interval[0] <= entropy.auroc <= entropy.interval[1]
    assert len(entropy.curve) == len(found.fields)
    assert [len(row) for row in found.table] == [7] * 4
    assert any(judged.is_error for judged in found.misjudged)
    assert any(not judged.is_error for judged in found.misjudged)


def test_answers_without_a_field_are_refused() -> None:
    class Mute:
        info = None

        def generate(self, prompts, **sampling):
            return [decoded(max_tokens=2) for _ in prompts]

    with pytest.raises(ConfigError, match="none of the 1 answers has a field"):
        evaluate(Mute(), [BOOK], lambda: None)


def test_a_fields_place_is_that_of_its_quotes() -> None:
    assert fields_of('{"a": "b"}') == [Field("a", "b", 1, 9)]
