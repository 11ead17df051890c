"""Planted faults are found: by the comparison at the first picture, or by tokens that are not transformers'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import paceline
from models.families import kernels
from paceline.errors import RequestError
from paceline.model.pictures import prompt as prompts
from paceline.model.pictures import towers
from paceline.model.pictures.prompt import Features
from paceline.testing import ScriptedTarget
from pictures.tiny import Subject, picture

WIDE = picture(61, 43, 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _no_offset(placed: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: placed(*args)._replace(offset=0)


def _no_axes(placed: Callable[..., Any]) -> Callable[..., Any]:
    def plain(self: Any, given: Any) -> Any:
        return placed(self, given)._replace(positions=np.arange(len(given.ids))[None].repeat(3, 0))

    return plain


def _no_blocks(placed: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: placed(*args)._replace(blocks=())


@pytest.mark.parametrize(("family", "fault"), [("qwen2_vl", _no_axes), ("gemma3", _no_blocks)], ids=["axes", "blocks"])
def test_a_model_that_does_more_is_refused(
    family: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all: the second picture is refused without another comparison."""
    monkeypatch.setattr(towers.Towers, "_placed", fault(towers.Towers._placed))
    subject = Subject(family)
    for _ in range(2):
        with pytest.raises(RequestError, match=r"takes no pictures here: logits behind a picture differ from .*'s own"):
            subject.llm.generate(subject.prompt(3, WIDE, 2), max_tokens=1)
    assert subject.llm.generate("w3 w4", max_tokens=2).token_ids, "text is decoded as before"
    subject.llm.close()


def test_features_that_layers_do_not_add_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = towers.Towers._features
    monkeypatch.setattr(towers.Towers, "_features", lambda *args: Features(whole(*args).embeddings))
    subject = Subject("qwen3_vl")
    with pytest.raises(RequestError, match="differ from Qwen3VLForConditionalGeneration's own"):
        subject.llm.generate(subject.prompt(WIDE, 2), max_tokens=1)


def test_a_lost_offset_changes_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("qwen2_5_vl")
    prompt = subject.prompt(3, picture(64, 64, 3), 2)
    assert list(subject.llm.generate(prompt, max_tokens=12).token_ids) == subject.generated(prompt, 12)
    monkeypatch.setattr(towers.Towers, "_placed", _no_offset(towers.Towers._placed))
    assert list(subject.llm.generate(prompt, max_tokens=12).token_ids) != subject.generated(prompt, 12)


def test_pages_that_are_known_by_tokens_alone_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("llava")
    monkeypatch.setattr(prompts, "_digest", lambda inputs: -1)
    first, second = (subject.prompt(9, picture(50, 50, seed), 40) for seed in (0, 1))
    assert list(subject.llm.generate(first, max_tokens=8).token_ids) == subject.generated(first, 8)
    assert list(subject.llm.generate(second, max_tokens=8).token_ids) != subject.generated(second, 8)


def test_without_the_native_kernels_blocks_are_refused_and_others_are_not() -> None:
    with kernels("0"):
        subject = Subject("gemma3")
        with pytest.raises(
            RequestError, match=r"pieces of a picture see each other in Gemma3For.*native kernels alone"
        ):
            subject.llm.generate(subject.prompt(WIDE, 1), max_tokens=1)
        other = Subject("qwen3_vl")
        prompt = other.prompt(30, WIDE, 50)
        plain = other.llm.generate(prompt, max_tokens=8, tenant="a")
        assert list(plain.token_ids) == other.generated(prompt, 8)
        again = other.llm.generate(prompt, max_tokens=8, tenant="a", drafters="auto")
        assert [(t.id, t.logprob) for t in again.tokens] == [(t.id, t.logprob) for t in plain.tokens]


def test_a_block_of_two_pictures_is_refused() -> None:
    """Its first pages would be known by the first picture alone."""
    subject = Subject("gemma4_blocks")
    with pytest.raises(RequestError, match="side by side; allowed for this model: text between them"):
        subject.llm.generate(subject.prompt(2, WIDE, picture(33, 50, 4), 1), max_tokens=1)
    subject.llm.close()


def test_a_model_without_towers_says_what_it_takes() -> None:
    target = ScriptedTarget(lambda history: -np.arange(5.0), vocab_size=5)
    llm = paceline.LLM.from_target(target, drafters="none")
    with llm, pytest.raises(RequestError, match="allowed for this model: text alone"):
        llm.generate({"prompt": "<image>", "images": WIDE}, max_tokens=1)


def test_rows_keep_their_bits_in_chunks_of_any_size() -> None:
    """And those before a picture have the bits of a text's."""
    for family in ("gemma3", "qwen3_vl"):
        subject = Subject(family)
        ids = subject.llm.runtime.factory.seen(subject.prompt(20, WIDE, 9, picture(33, 50, 4), 30))
        decoder, rng = subject.target.decoder, np.random.default_rng(0)
        runs = []
        for largest in (64, 1, 23):
            sequence = decoder.pool.reserve(len(ids))
            sequence.pictures = ids.pictures
            rows: list[np.ndarray] = []
            while sequence.length < len(ids):
                start = sequence.length
                end = min(start + int(rng.integers(1, largest + 1)), len(ids), (start // 64 + 1) * 64)
                rows += [decoder.prefill_logits(sequence, ids[start : ids.pictures.end_of_chunk(start, end)])]
            decoder.pool.release(sequence)
            runs.append(np.concatenate(rows))
        runs.append(decoder.prefill_logits(decoder.pool.reserve(20), ids[:20]))
        assert len({run[:20].tobytes() for run in runs}) == 1
        assert len({run.tobytes() for run in runs[:3]}) == 1
        subject.llm.close()
