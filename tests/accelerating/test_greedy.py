"""Greedy text through `accelerate` is that of transformers' own generate: families, padding, settings, drafts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

import paceline
from accelerating.conftest import ENDS, Pair, batch
from accelerating.same import assert_handed_over, assert_same
from accelerating.told import Told
from exactness import translators
from models.families import VOCAB, tiny
from paceline.accelerating import processors, rows, watching
from paceline.accelerating.law import LawSampler

# Learned positions, a bias by distance, a state; a Llama is the pair of all other tests.
FAMILIES = ("gpt2", "bloom", "mamba")


@contextlib.contextmanager
def accelerated(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    yield paceline.accelerate(model, cache_tokens=2048)
    paceline.unaccelerate(model)


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_with_padding_and_ragged_ends(kind: str) -> None:
    with accelerated(tiny(kind)) as model:
        assert_same(model, batch(9, 4, 1), max_new_tokens=11, eos_token_id=ENDS, pad_token_id=0)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_an_encoder_decoder_reads_sources_padded_on_their_right(kind: str) -> None:
    with accelerated(translators.build(kind)) as model:
        ids = torch.randint(3, 110, (2, 9), generator=torch.Generator().manual_seed(1))
        mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
        inputs = {"input_ids": ids, "attention_mask": mask}
        assert_same(model, inputs, max_new_tokens=8, encoder_repetition_penalty=1.4)
        start = torch.tensor([[model.generation_config.decoder_start_token_id, 7, 11]] * 2)
        found = assert_same(model, {**inputs, "decoder_input_ids": start}, max_new_tokens=8)
        assert torch.equal(found[:, :3], start)


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "repetition_penalty": st.sampled_from([0.7, 1.6]),
    "no_repeat_ngram_size": st.integers(1, 3),
    "min_new_tokens": st.integers(1, 4),
    "bad_words_ids": st.just([[3], [4, 5], [17]]),
    "suppress_tokens": st.just([7, 8, 9]),
    "begin_suppress_tokens": st.just([11, 12]),
    "forced_eos_token_id": st.sampled_from([33, 64]),
    "sequence_bias": st.just([[[5, 6], 3.0], [[7], -2.5]]),
    "exponential_decay_length_penalty": st.just((2, 1.4)),
    "renormalize_logits": st.just(True),
    "remove_invalid_values": st.just(True),
    "encoder_repetition_penalty": st.sampled_from([0.8, 1.3]),
    "encoder_no_repeat_ngram_size": st.integers(1, 2),
    "prefix_allowed_tokens_fn": st.just(lambda row, ids: [*range(row * 3 + 1, 120, 1 + len(ids) % 3)]),
    "use_cache": st.booleans(),
}


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.fixed_dictionaries({}, optional=SETTINGS),
    st.booleans(),
    st.integers(4, 14),
)
def test_settings_that_make_scores_and_ends(
    pair: Pair, lengths: list[int], drawn: dict[str, Any], has_end: bool, num_new: int
) -> None:
    ends: dict[str, Any] = {"eos_token_id": ENDS, "pad_token_id": 3} if has_end else {"pad_token_id": 3}
    if not has_end and "exponential_decay_length_penalty" in drawn:
        del drawn["exponential_decay_length_penalty"]
    pair.assert_same(batch(*lengths, seed=sum(lengths)), **ends, **drawn, max_new_tokens=num_new)


def test_a_model_in_bfloat16_parts_at_ties_alone() -> None:
    with accelerated(tiny("llama", dtype=torch.bfloat16)) as model:
        inputs = batch(11)
        found = model.generate(**inputs, max_new_tokens=12)
        wanted = type(model).generate(
            model, **inputs, max_new_tokens=12, return_dict_in_generate=True, output_scores=True
        )
        parts = (found[0] != wanted.sequences[0]).nonzero()
        if len(parts):
            scores = wanted.scores[int(parts[0]) - 11][0]
            assert float(scores[wanted.sequences[0][parts[0]]] - scores[found[0][parts[0]]]) < 0.1


def unshared() -> Any:
    return patch.dict(processors._SHARES, clear=True)


def padded() -> Any:
    return patch.object(rows, "prompts_of", lambda ids, mask: ids.tolist())


def forgetful() -> Any:
    """The processors are shown the prompt alone."""
    process = LawSampler._processed

    def forgets(self: LawSampler, logits: Any) -> Any:
        self._num_padded, kept = self._law.ids.shape[0], self._num_padded
        scores = process(self, logits)
        self._num_padded = kept
        return scores

    return patch.object(LawSampler, "_processed", forgets)


def endless() -> Any:
    return patch.object(LawSampler, "_is_over", lambda self: False)


FAULTS: list[tuple[Any, dict[str, Any]]] = [
    (unshared, {"prefix_allowed_tokens_fn": lambda row, ids: [row + 1, row + 7, row + 50]}),
    (padded, {}),
    (forgetful, {"no_repeat_ngram_size": 1}),
    (endless, {"stopping_criteria": [lambda ids, scores, **_: ids.shape[1] > 14]}),
]


@pytest.mark.parametrize(("fault", "asked"), FAULTS)
def test_the_check_finds_planted_faults(pair: Pair, fault: Any, asked: dict[str, Any]) -> None:
    inputs = batch(9) if "stopping_criteria" in asked else batch(9, 5, seed=2)
    call = {**asked, "max_new_tokens": 12, "eos_token_id": ENDS[:1], "pad_token_id": 0}
    pair.assert_same(inputs, **call)
    with fault(), pytest.raises(AssertionError):
        pair.assert_same(inputs, **call)


def test_changed_weights_are_noticed(pair: Pair) -> None:
    """In place, through `.data` and by another tensor; and the check would see it if they were not."""
    model, inputs = tiny("llama", seed=4), batch(6)
    with accelerated(model):
        before = assert_same(model, inputs, max_new_tokens=8)
        with torch.no_grad():
            model.lm_head.weight.mul_(-1)
        assert not torch.equal(assert_same(model, inputs, max_new_tokens=8), before)
        model.lm_head.weight.data.mul_(-1)
        assert torch.equal(assert_same(model, inputs, max_new_tokens=8), before)
        with (
            patch.object(watching, "state_of", return_value=0),
            patch("paceline.accelerating.engines.state_of", return_value=model.generate.engines._state),
        ):  # type: ignore[attr-defined]
            model.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight)
            with pytest.raises(AssertionError):
                assert_same(model, inputs, max_new_tokens=8)
        assert_same(model, inputs, max_new_tokens=8)


def test_a_change_that_cannot_be_decoded_is_handed_over() -> None:
    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.mean(1, keepdim=True)  # of all rows: no causal model any more

    model, inputs = tiny("llama", seed=4), batch(6)
    with accelerated(model):
        model.model.layers[0].mlp.act_fn = Doubling()
        assert_handed_over(model, inputs, "a model that has changed", max_new_tokens=4)


def test_drafts_are_taken(pair: Pair) -> None:
    """Or nothing here would be a test of trees."""
    seen: list[int] = []
    with patch.object(Told, "observe", lambda self, outcome: seen.append(outcome.num_accepted_drafts)):
        pair.assert_same(batch(7), max_new_tokens=24, pad_token_id=0)
    assert sum(seen) > 8


def test_vocabulary() -> None:
    assert max(ENDS) < VOCAB
