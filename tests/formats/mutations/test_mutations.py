"""A sample of the damaged files: `scripts/mutate gguf 100000 STATE.json` has all of them, under sanitizers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers.initialization import no_init_weights

from formats.mutations.damage import mutated, other_values
from formats.mutations.subjects import KINDS_OF_SUBJECTS, load

pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", KINDS_OF_SUBJECTS)
def test_damaged_files_are_loaded_or_refused(kind: str, tmp_path: Path) -> None:
    subjects = KINDS_OF_SUBJECTS[kind](tmp_path)
    loaded, number = 0, 6 * len(subjects)
    with no_init_weights():
        for subject in subjects[:: 4 if kind == "gguf" else 3]:
            assert load(subject.write(tmp_path))
        for i in range(number):
            subject = subjects[i % len(subjects)]
            loaded += load(subject.write(tmp_path, subject.damaged(random.Random(i))))
    assert 0 < loaded < number / 2


def test_damage_is_its_seeds_and_changes_something() -> None:
    raw, text = bytes(range(200)), '{"a": [1, {"b": 2.5}], "c": "d", "e": {"f": null}}'
    for seed in range(50):
        assert mutated(raw, 100, random.Random(seed)) == mutated(raw, 100, random.Random(seed))
        assert other_values(text, random.Random(seed)) == other_values(text, random.Random(seed))
    assert sum(mutated(raw, 100, random.Random(seed)) != raw for seed in range(50)) > 45
    assert sum(other_values(text, random.Random(seed)) != text for seed in range(50)) > 45
