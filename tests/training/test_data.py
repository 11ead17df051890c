"""Texts are kept whole at any kill, planned by a seed, held out by prompt, and packed without seeing each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import ConfigError, ModelError
from paceline.training import anchors
from paceline.training.data import Corpus, Document, Entry, Plan, Question, split
from paceline.training.features import Features
from paceline.training.packing import pack
from training import tiny


def entry(prompt: int, size: int, held_out: bool = False, heat: float = 1.0) -> Entry:
    return Entry("text", held_out, heat, prompt, size)


@pytest.mark.parametrize("vocab_size", [4096, 100_000])
def test_a_kill_costs_what_was_not_whole(tmp_path: Path, vocab_size: int) -> None:
    corpus = Corpus(tmp_path, vocab_size)
    corpus.append([(entry(1, 3), [1, 2, vocab_size - 1]), (entry(2, 4, True), [5, 6, 7, 8])])
    corpus.append([(entry(1, 2), [9, 10])])
    tokens, index = (tmp_path / name for name in ("tokens.bin", "documents.jsonl"))
    whole, lines = tokens.read_bytes(), index.read_bytes()
    for size in range(0, len(whole) + 1, 3):
        for end in range(0, len(lines) + 1, 17):
            tokens.write_bytes(whole[:size])
            index.write_bytes(lines[:end])
            found = Corpus(tmp_path, vocab_size)
            width = 2 if vocab_size == 4096 else 4
            fitting = sum(size >= width * count for count in (3, 7, 9))
            assert len(found) == min(fitting, lines[:end].count(b"\n"))
            found.append([(entry(1, 2), [3, 4])])
            texts = [d.tokens.tolist() for d in [*found.read(False), *found.read(True)]]
            assert [3, 4] in texts
            assert all(text in ([1, 2, vocab_size - 1], [5, 6, 7, 8], [9, 10], [3, 4]) for text in texts)


def test_one_seed_one_plan() -> None:
    questions = [Question((i,)) for i in range(7)]
    plans = [Plan(questions, 40, 32, {0.0: 0.5, 1.0: 0.5}, seed) for seed in (0, 0, 1)]
    first, second, other = ([plan.job(i) for i in range(40)] for plan in plans)
    assert first == second != other
    for turn in range(5):
        assert {job[0] for job in first[turn * 7 : turn * 7 + 7]} == set(questions)
    assert {job[1] for job in first} == {0.0, 1.0}
    assert len({job[2] for job in first}) == 40
    with pytest.raises(ConfigError, match="no prompts"):
        Plan([], 1, 32, {0.0: 1.0})
    with pytest.raises(ConfigError, match="mix"):
        Plan(questions, 1, 32, {0.0: 0.0})


def test_a_tenth_of_the_prompts_is_held_out_whatever_their_order() -> None:
    questions = [Question((i, i + 1)) for i in range(500)]
    held_out = {q.ids for q in split(questions) if q.is_held_out}
    assert 25 < len(held_out) < 85
    assert {q.ids for q in split(questions[::-1]) if q.is_held_out} == held_out
    for count in (2, 3):
        assert {q.is_held_out for q in split(questions[:count])} == {True, False}


def documents(sizes: list[int], seed: int = 0) -> list[Document]:
    draw = np.random.default_rng(seed)
    return [Document(entry(min(2, n - 1), n), draw.integers(1, tiny.VOCABULARY, n).astype(np.uint16)) for n in sizes]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=30), st.integers(0, 99))
def test_every_token_is_packed_once(sizes: list[int], seed: int) -> None:
    texts, length = documents(sizes, seed), 32
    packed = pack(texts, length, np.random.default_rng(seed).permutation(len(texts)))
    found: dict[int, list[int]] = {}
    for row in range(len(packed)):
        for place in range(length):
            source = int(packed.source[row, place])
            assert (source < 0) == (int(packed.document[row, place]) < 0)
            if source >= 0:
                assert int(packed.positions[row, place]) == len(found.setdefault(source, []))
                assert bool(packed.is_output[row, place]) == (
                    len(found[source]) >= texts[source].entry.num_prompt_tokens
                )
                found[source].append(int(packed.tokens[row, place]))
    assert found == {i: text.tokens[:length].tolist() for i, text in enumerate(texts)}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=12), st.integers(0, 99), st.integers(1, 9))
def test_blocks_begin_where_steps_may_and_predict_what_the_target_wrote(sizes: list[int], seed: int, size: int) -> None:
    packed = pack(documents(sizes, seed), 32)
    draw = np.random.default_rng(seed)
    for chosen in (anchors.drawn(packed, 5, size, draw), anchors.spread(packed, 3, size)):
        for row, block, slot in chosen.is_valid.nonzero().tolist():
            place = int(chosen.places[row, block])
            before = int(chosen.before[row, block, slot])
            assert before == place + slot
            assert packed.positions[row, place] > 0
            assert packed.document[row, place] == packed.document[row, before + 1] >= 0
            assert packed.is_output[row, place + 1]
    whole = anchors.spread(packed, 1, size).is_valid
    assert (whole.all(-1) | ~whole.any(-1)).all()
    assert int(whole.all(-1).sum()) == sum(max(0, min(n, 32) - max(min(2, n - 1), 2) + 1 - size) for n in sizes)


def test_packed_states_are_those_of_each_text_alone() -> None:
    target, texts = tiny.target(), documents([9, 5, 14, 20, 3])
    features = Features(target, (0, 2, 3))
    packed = pack(texts, 24)
    taps, logits = features(packed)
    for number, text in enumerate(texts):
        mine = packed.source == number
        ids = torch.from_numpy(text.tokens.astype(np.int64))[None]
        alone = target(input_ids=ids, output_hidden_states=True)
        for tap, states in zip((0, 2), taps, strict=False):
            assert torch.allclose(states[mine], alone.hidden_states[tap][0], atol=1e-5)
        assert torch.allclose(target.model.norm(taps[2][mine]), alone.hidden_states[3][0], atol=1e-5)
        assert torch.allclose(logits[mine], alone.logits[0], atol=1e-5)
    with pytest.raises(ModelError, match="no tap 4"):
        Features(target, (4,))
