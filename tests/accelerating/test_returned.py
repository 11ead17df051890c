"""What a call returns beside tokens, and what of it a later call takes."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import pytest
import torch

import paceline
from accelerating.conftest import ENDS, Pair, batch
from accelerating.same import own
from exactness import translators
from models.families import VOCAB


def test_a_dictionary_holds_scores_logits_and_a_cache(pair: Pair) -> None:
    inputs = batch(8, 3)
    call = {"max_new_tokens": 10, "eos_token_id": ENDS, "pad_token_id": 2, "repetition_penalty": 1.3}
    call |= {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    ours, theirs = pair.model.generate(**inputs, **call), own(pair.model, **inputs, **call)
    assert type(ours) is type(theirs)
    assert torch.equal(ours.sequences, theirs.sequences)
    new = ours.sequences[:, 8:]
    for name in ("scores", "logits"):
        assert len(ours[name]) == len(theirs[name]) == new.shape[1]
        for place, (one, other) in enumerate(zip(ours[name], theirs[name], strict=True)):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            for row in range(2):
                has_ended = any(token in ENDS for token in new[row, :place].tolist())
                wanted = torch.full((VOCAB,), -torch.inf) if has_ended else other[row]
                if has_ended:
                    wanted[2] = 0.0  # the padding is certain
                torch.testing.assert_close(one[row], wanted, atol=1e-4, rtol=1e-4)
    assert ours.attentions is theirs.attentions is None
    assert ours.cache.get_seq_length() == theirs.cache.get_seq_length()
    for one, other in zip(ours.cache.layers, theirs.cache.layers, strict=True):  # of padding a forward makes anything
        torch.testing.assert_close(one.keys[:, :, 5:], other.keys[:, :, 5:], atol=1e-4, rtol=1e-4)
    gone_on = pair.model.generate(**inputs, **{**call, "use_cache": False})
    assert gone_on.cache is None


def assert_close(one: Any, other: Any, first: int) -> None:
    """Nested tuples of tensors; of what padding's rows hold a forward makes anything."""
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b, first)
    elif one is not None:
        assert one.shape == other.shape
        row = slice(first if one.shape[-2] > first else 0, None)
        torch.testing.assert_close(one[..., row, :], other[..., row, :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_cache", [True, False])
def test_attentions_and_hidden_states_are_those_of_each_step(pair: Pair, use_cache: bool) -> None:
    inputs, told = batch(6, 4), {"output_attentions": True, "output_hidden_states": True}
    call = {**told, "max_new_tokens": 5, "return_dict_in_generate": True, "use_cache": use_cache, "pad_token_id": 0}
    ours, theirs = pair.model.generate(**inputs, **call), own(pair.model, **inputs, **call)
    assert_close(ours.attentions, theirs.attentions, 2)
    assert_close(ours.hidden_states, theirs.hidden_states, 2)


def test_those_of_an_encoder_decoder() -> None:
    model = paceline.accelerate(translators.build("bart"), cache_tokens=1024)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 110, (2, 7), generator=torch.Generator().manual_seed(1))
    asked = {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True}
    ours, theirs = (generate(ids, max_new_tokens=4, **asked) for generate in (model.generate, partial(own, model)))
    parts = ("encoder_attentions", "decoder_attentions", "cross_attentions", "encoder_hidden_states")
    for part in (*parts, "decoder_hidden_states"):
        assert ours[part] is not None
        assert_close(ours[part], theirs[part], 0)
    paceline.unaccelerate(model)


def test_embeddings_of_tokens_are_read_as_these(pair: Pair) -> None:
    ids = batch(6, 4)
    told = {"inputs_embeds": pair.model.get_input_embeddings()(ids["input_ids"]).detach()}
    told["attention_mask"] = ids["attention_mask"]
    call = {"max_new_tokens": 5, "pad_token_id": 0, "return_dict_in_generate": True, "output_hidden_states": True}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (told, {**ids, **told}):
            ours, theirs = pair.model.generate(**given, **call), own(pair.model, **given, **call)
            assert torch.equal(ours.sequences, theirs.sequences)
            assert_close(ours.hidden_states, theirs.hidden_states, 2)


def test_a_returned_cache_is_gone_on_behind_and_with(pair: Pair) -> None:
    """As a chat does: the cache of the first turn, and the whole text of the second."""
    inputs, call = batch(6, 4), {"max_new_tokens": 5, "pad_token_id": 0}
    later = torch.tensor([[7, 8], [9, 10]])

    def turns(generate: Any) -> list[torch.Tensor]:
        first = generate(**inputs, **call, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, later], -1)
        mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 7), value=1)
        second = generate(input_ids=ids, attention_mask=mask, **call, cache=first.cache)
        return [second, *(layer.keys[:, :, 2:] for layer in first.cache.layers)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = turns(pair.model.generate)
    theirs = turns(partial(own, pair.model))
    assert torch.equal(ours[0], theirs[0])
    for one, other in zip(ours[1:], theirs[1:], strict=True):  # the caller's, grown in place
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_cache_that_was_changed_or_holds_another_text_is_handed_over(pair: Pair) -> None:
    inputs, call = batch(6), {"max_new_tokens": 3, "pad_token_id": 0}
    kept = pair.model.generate(**inputs, **call, return_dict_in_generate=True)
    other = torch.cat([kept.sequences[:, :-1] * 0 + 5, kept.sequences], -1)
    with pytest.warns(paceline.HandedOverWarning, match="does not begin with the text"):
        pair.model.generate(other, **call, cache=kept.cache)
    kept = pair.model.generate(**inputs, **call, return_dict_in_generate=True)
    kept.cache.layers[0].keys.mul_(2.0)
    with pytest.warns(paceline.HandedOverWarning, match="as they were"):
        pair.model.generate(kept.sequences, **call, cache=kept.cache)


def test_a_cache_made_in_inference_mode_is_known_too(pair: Pair) -> None:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = pair.model.generate(**batch(6), max_new_tokens=3, return_dict_in_generate=True)
        pair.model.generate(kept.sequences, max_new_tokens=3, cache=kept.cache, no_repeat_ngram_size=2)
