"""Greedy text against transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel


def assert_greedy(model: PreTrainedModel, prompt: Sequence[int], count: int, ours: Sequence[int]) -> None:
    """`ours` is the `count` tokens that transformers generates, up to the first tie within rounding."""
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
    assert first is None or gaps[first] < 1e-4, f"token {first} differs where the gap is {gaps[first]:.2g}"
