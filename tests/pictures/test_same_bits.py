"""What is decoded behind pictures: transformers' tokens, and plain decoding's bits, whatever shares a forward."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from exactness.decoding import RandomTrees, decode
from paceline.engine.engine import Engine
from pictures.tiny import FAMILIES, Subject, picture

SWEPT = {"gemma4", "llava_next"}  # by `scripts/coverage pictures` alone: others show what they do
WIDE, HIGH, SMALL = picture(61, 43, 0), picture(37, 90, 1), picture(29, 31, 2)


@pytest.fixture(scope="module", params=sorted(set(FAMILIES) - SWEPT))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Subject(request.param)
    yield made
    made.llm.close()
    torch.set_num_threads(threads)


def test_greedy_tokens_are_those_of_transformers(subject: Subject) -> None:
    for parts in ((3, WIDE, 9), (70, HIGH, 1, SMALL, 60), (SMALL, 2)):
        prompt = subject.prompt(*parts)
        out = subject.llm.generate(prompt, max_tokens=12, temperature=0.0, tenant=str(parts))
        assert list(out.token_ids) == subject.generated(prompt, 12)


def test_drafted_bits_are_those_of_plain_decoding(subject: Subject) -> None:
    """Side by side with text, with each other, from the cache and without."""
    made = [
        subject.job(subject.prompt(5, WIDE, 7), 1),
        subject.job(subject.prompt(5, WIDE, 40, HIGH, 3), 2, temperature=1.0),
        subject.job(subject.prompt(66, SMALL, 1), 3, temperature=0.7, repetition_penalty=1.2),
    ]
    for seed, style in enumerate(("mixed", "always")):
        drafter = RandomTrees(subject.plain, made, seed, style)  # type: ignore[arg-type]
        assert subject.plain.differences(made, decode(subject.target, made, drafter)) == []


def test_the_same_picture_is_found_and_another_is_not(subject: Subject) -> None:
    def cached(*parts: object, tenant: str) -> int:
        prompt = subject.prompt(*parts)  # type: ignore[arg-type]
        return subject.llm.generate(prompt, max_tokens=2, tenant=tenant).stats.num_cached_tokens

    assert cached(40, WIDE, 70, tenant="one") == 0
    again = cached(40, WIDE, 70, tenant="one")
    assert again >= 64
    assert cached(40, picture(61, 43, 9), 70, tenant="one") == 0, "of the same size, with other pixels"
    assert cached(40, WIDE, 70, tenant="another") == 0
    assert cached(40, WIDE, 70, SMALL, 1, tenant="one") == again


def test_features_are_those_of_a_picture_alone(subject: Subject) -> None:
    """Made again, and beside another picture: the same bits."""
    towers, see = subject.target.decoder.towers, subject.llm.runtime.factory.seen
    first, again, both = (see(subject.prompt(*parts, 1)).pictures for parts in ((WIDE,), (WIDE,), (WIDE, 1, HIGH)))
    alone, whole = towers.features(first), towers.features(both)
    assert alone.embeddings.isfinite().all()
    for other in (towers.features(again), whole):
        pairs = zip((alone.embeddings, *alone.by_layer), (other.embeddings, *other.by_layer), strict=True)
        assert all(torch.equal(one, part[: len(one)]) for one, part in pairs)
    assert len(whole.embeddings) > len(alone.embeddings)


def test_preemption_changes_no_bit(subject: Subject) -> None:
    made = [subject.job(subject.prompt(60, WIDE, 3), 4), subject.job(subject.prompt(9, HIGH, 2), 5)]
    count = 0

    def preempt(engine: Engine) -> None:
        nonlocal count
        running = engine.scheduler.decoding
        if running and count < 3 and engine.scheduler.decoding[-1].num_output_tokens > 3 * (count + 1):
            engine._preempt(running[-1])
            count += 1

    traces = decode(subject.target, made, RandomTrees(subject.plain, made), on_step=preempt)
    assert count == 3
    assert subject.plain.differences(made, traces) == []
