"""Encoder-decoders: the bits of plain decoding whatever the drafts, neighbours and sources around a request."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch

from exactness import translators
from exactness.decoding import Job, RandomTrees, decode
from exactness.test_preemption import Played
from exactness.translators import KINDS, START, Translator, job, loaded
from paceline.model.seq2seq import rows as source_rows
from paceline.model.seq2seq.encoder import Encoder, encoded, source_pairs
from paceline.model.seq2seq.sources import Source

LENGTHS = (1, 2, 63, 64, 65, 128, 129, 200)


@pytest.fixture(scope="module", params=["native", "modules"])
def bart(request: pytest.FixtureRequest) -> Iterator[Translator]:
    with loaded("" if request.param == "native" else "0", "bart") as one:
        yield one


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_decodes_as_transformers_does(kind: str) -> None:
    """Greedy tokens are `generate`'s, logits its own; drafted bits are those of plain decoding."""
    with loaded("", kind) as one:
        assert one.decoder.is_exact_by_construction
        jobs = [job(length, i, 9, repetition_penalty=1.3) for i, length in enumerate((1, 65, 130))]
        for each in jobs:
            tokens = one.plain[each].tokens
            options = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.3, "eos_token_id": None}
            own = one.model.generate(torch.tensor([each.source]), max_new_tokens=9, **options)[0].tolist()
            assert own == [START, *tokens]
            np.testing.assert_allclose(np.stack(one.plain[each].rows), one.own_logits(each, tokens), atol=3e-4)
        one.before.assert_still_true_of(one.model)
        encoder = one.decoder.encoder
        assert encoder is not None
        assert encoder._projections  # known by now, and no decoder is run for what it says of a source
        own = source_pairs(one.decoder.model, encoded(one.decoder.model, jobs[1].source))
        for ours, theirs in zip(encoder._pairs(jobs[1].source), own, strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])
        sampled = [job(length, i, 11, temperature=i % 2) for i, length in enumerate(LENGTHS)]
        drafter = RandomTrees(one.plain, sampled, fill=True)
        assert one.plain.differences(sampled, decode(one.target, sampled, drafter)) == []


def test_batches_of_different_sources_have_the_bits_of_each_alone(bart: Translator) -> None:
    lengths = LENGTHS if bart.decoder.is_exact_by_construction else LENGTHS[2::2]
    jobs = [job(length, i, 70 if i == 2 else 13, temperature=float(i % 2)) for i, length in enumerate(lengths)]
    for style in ("mixed", "always"):
        drafter = RandomTrees(bart.plain, jobs, 3, style, fill=style == "always")
        assert bart.plain.differences(jobs, decode(bart.target, jobs, drafter, budget=9)) == []
    outputs = {tuple(bart.plain[one].tokens[:9]) for one in jobs}
    assert len(outputs) > len(jobs) // 2  # the sources matter


def test_rows_that_see_all_of_the_source_but_its_end_are_found_out(bart: Translator) -> None:
    """A fault planted: the last position of a source is lost."""
    one = job(65, 40, 9)
    assert len(bart.plain[one].rows) == 9
    found = source_rows.source_of

    def short(sequence):  # type: ignore[no-untyped-def]
        whole = found(sequence)
        with patch.object(whole, "length", whole.length - 1):
            cut = type(whole)(whole.pages, whole.length)
        return cut

    with patch.object(source_rows, "source_of", short), patch("paceline.model.forward.source_of", short):
        assert bart.plain.differences([one], decode(bart.target, [one])) != []


def test_a_source_is_read_once_and_found_by_its_tenant_alone(bart: Translator) -> None:
    ids = list(translators.source(130, 50))
    options = {"max_tokens": 9, "temperature": 1.0, "seed": 3}
    with patch.object(Encoder, "read", autospec=True, side_effect=Encoder.read) as read:
        first = bart.llm.generate([ids], n=3, **options)
        again = bart.llm.generate([ids], n=3, **options)
        assert read.call_count == 1
        other = bart.llm.generate([ids], n=3, tenant="another", **options)
        assert read.call_count == 2
    bits = [[[(t.id, t.logprob) for t in output.tokens] for output in outputs] for outputs in (first, again, other)]
    assert bits[0] == bits[1] == bits[2]


def test_pages_behind_one_source_are_never_found_behind_another(bart: Translator) -> None:
    """Outputs begin with the same 130 tokens: whole pages that know nothing of the source by their own tokens."""
    start = (START, *translators.source(129, 60))
    jobs = [Job(start, {"max_tokens": 7}, i, translators.source(70, 61 + i % 2)) for i in range(4)]
    plain = [bart.plain[one] for one in jobs]
    assert plain[0].rows[0].tobytes() == plain[2].rows[0].tobytes() != plain[1].rows[0].tobytes()
    assert bart.plain.differences(jobs, decode(bart.target, jobs, RandomTrees(bart.plain, jobs))) == []
    requests = [one.request(bart.target) for one in jobs]
    assert [bart.target.num_unread(request) for request in requests] == [1, 1, 1, 1]
    unknown = Job(start, {"max_tokens": 7}, 9, translators.source(70, 99)).request(bart.target)
    assert bart.target.num_unread(unknown) == 70 + 129


def test_a_source_that_was_half_forgotten_is_read_again(bart: Translator) -> None:
    one = job(200, 70, 9)
    plain = bart.plain[one]
    found = Source(bart.decoder.encoder, bart.pool, "", one.source).find()
    assert len(found) == 4
    bart.pool.prefixes.forget(found[2])
    assert Source(bart.decoder.encoder, bart.pool, "", one.source).find() == []
    again = decode(bart.target, [one])[0]
    assert [row.tobytes() for row in again.rows] == [row.tobytes() for row in plain.rows]


@pytest.mark.parametrize("setting", ["", "0"], ids=["native", "modules"])
def test_whoever_is_preempted_goes_on_with_the_same_bits(setting: str) -> None:
    with loaded(setting, "marian", cache_tokens=960) as one:
        assert one.pool.reserve(960 - 64 * 6) is not None
        count = 5 if one.decoder.is_exact_by_construction else 4
        jobs = [job(40 + 30 * (i % 2), i, 41 + i, prompt=40 + i, temperature=float(i % 2)) for i in range(count)]
        played = Played(one, jobs, 5, budget=2)  # type: ignore[arg-type]
        assert played.differences(one, jobs) == []  # type: ignore[arg-type]
        assert played.num_preemptions >= 1
        assert one.pool.num_free_tokens == 64 * 6
