"""Greedy text against transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

_TIE = 1e-4


def assert_greedy(model: PreTrainedModel, prompt: Sequence[int], count: int, ours: Sequence[int]) -> None:
    """`ours` is the `count` tokens that transformers generates, up to the first tie within rounding.

    Where `generate` is not greedy by the logits of the whole text, as with some caches of states, `ours` has to be.
    """
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    theirs = out.sequences[0, ids.shape[1] :].tolist()
    gaps = [float(-score[0].topk(2).values.diff()) for score in out.scores]
    # Rounding may decide a tie; nothing else may differ. The gap at the first difference is the evidence.
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
    if first is None or gaps[first] < _TIE:
        return
    assert max(shortfalls(model, prompt, ours)) < _TIE, f"token {first} differs where the gap is {gaps[first]:.2g}"
    assert shortfalls(model, prompt, theirs)[first] > _TIE, "transformers' text is as greedy, and another"


def shortfalls(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """By how much each token's logit is below the highest, in one forward over the whole text without a cache."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens[:-1]]]), use_cache=False).logits[0, len(prompt) - 1 :]
    chosen = logits.gather(1, torch.tensor(tokens).unsqueeze(1)).squeeze(1)
    return (logits.max(1).values - chosen).tolist()  # type: ignore[no-any-return]
