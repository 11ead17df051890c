"""What is not done is left to transformers' own generate, in words, once, and comes out as that does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria

from accelerating.conftest import Pair, batch
from accelerating.same import assert_handed_over, own
from models.families import VOCAB, tiny


class Louder(LogitsProcessor):
    """Looks at all rows at once."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return scores - scores.mean(0, keepdim=True)  # type: ignore[return-value]


class Together(StoppingCriteria):
    """Ends all rows when one of them has said something."""

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), bool((input_ids[:, -1] < 40).any()))


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("num_beams", {"num_beams": 2}),
    ("num_beams", {"num_beams": 2, "do_sample": True}),
    ("logits_processor Louder", {"logits_processor": [Louder()]}),
    ("stopping_criteria Together", {"stopping_criteria": [Together()]}),
    ("custom_generate", {"custom_generate": lambda model, input_ids, **_: input_ids}),
    ("position_ids", {"position_ids": torch.arange(6)[None].repeat(2, 1)}),
    ("max_length", {"max_new_tokens": 700, "eos_token_id": [*range(VOCAB)]}),
]


@pytest.mark.parametrize(("match", "asked"), ASKED, ids=[match for match, _ in ASKED])
def test_an_argument(pair: Pair, match: str, asked: dict[str, Any]) -> None:
    assert_handed_over(pair.model, batch(6, 6), match, **{"max_new_tokens": 5, "pad_token_id": 0, **asked})


def test_a_cache_of_the_callers(pair: Pair) -> None:
    with pytest.warns(match="cache is left to transformers"):
        pair.model.generate(**batch(5), max_new_tokens=3, cache=DynamicCache())
    with pytest.warns(match="synced_gpus is left to transformers"), pytest.raises(ValueError, match="process group"):
        pair.model.generate(**batch(5), max_new_tokens=3, synced_gpus=True)


def test_embeddings_masks_with_holes_and_padding_on_the_right(pair: Pair) -> None:
    inputs = batch(6, 6)
    embedded = {"inputs_embeds": torch.rand(2, 6, 56, generator=torch.Generator().manual_seed(0))}
    call = {"max_new_tokens": 4, "pad_token_id": 0}
    assert_handed_over(pair.model, embedded, "inputs_embeds", **call)
    mask = inputs["attention_mask"].clone()
    mask[0, 2] = 0
    assert_handed_over(pair.model, {**inputs, "attention_mask": mask}, "attention_mask", **call)
    mask[0] = torch.tensor([1, 1, 1, 1, 0, 0])
    assert_handed_over(pair.model, {**inputs, "attention_mask": mask}, "attention_mask", **call)


def test_attentions_of_a_window(pair: Pair) -> None:
    asked = {"output_attentions": True, "return_dict_in_generate": True, "cache_implementation": "static"}
    assert_handed_over(pair.model, batch(5), "output_attentions", max_new_tokens=3, **asked)


def test_a_model_in_training_mode(pair: Pair) -> None:
    pair.model.train()
    try:
        assert_handed_over(pair.model, batch(5), "training mode", max_new_tokens=3)
    finally:
        pair.model.eval()


def test_an_assistant_of_another_vocabulary(pair: Pair) -> None:
    """It changes the speed alone, and so does to go without it."""
    other = tiny("llama", seed=9, vocab_size=97)
    with pytest.warns(UserWarning, match="assistant_model drafts nothing here: .*vocabulary"):
        found = pair.model.generate(**batch(5), max_new_tokens=3, assistant_model=other)
    assert torch.equal(found, own(pair.model, **batch(5), max_new_tokens=3))


def test_what_says_that_it_goes_by_the_row_is_believed(pair: Pair) -> None:
    class Quiet(LogitsProcessor):
        is_function_of_prefix = True

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            return scores - 3.0 * (torch.arange(scores.shape[1]) % 7 == input_ids.shape[1] % 7)  # type: ignore[return-value]

    pair.assert_same(batch(6, 4), max_new_tokens=9, pad_token_id=0, logits_processor=[Quiet()])


def test_rows_that_would_go_on_behind_their_ends(pair: Pair) -> None:
    """Without an end-of-sequence token transformers pads nothing."""

    class Ends(StoppingCriteria):
        is_function_of_prefix = True

        def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return input_ids[:, -1] < 60

    call = {"max_new_tokens": 9, "pad_token_id": 0, "stopping_criteria": [Ends()]}
    assert_handed_over(pair.model, batch(6, 4), "stopping_criteria Ends", **call)
    pair.assert_same(batch(6, 4), **call, eos_token_id=130)
