"""The rows of a batch as transformers prepared it: ids padded on the left, and what is a prompt in them."""

from __future__ import annotations

import torch

from paceline.accelerating.handing_over import HandOver


def prompts_of(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> list[list[int]]:
    """The tokens of each row (B, L) without its padding.

    Raises:
        HandOver: a row is padded elsewhere than on its left, or is nothing but padding.
    """
    if attention_mask is None:
        return [row.tolist() for row in input_ids]
    is_read = attention_mask != 0
    lengths = is_read.sum(-1)
    places = torch.arange(input_ids.shape[1], device=is_read.device)
    if not torch.equal(is_read, places >= input_ids.shape[1] - lengths[:, None]):
        raise HandOver("attention_mask", "it hides more than padding on the left")
    if not bool(lengths.all()):
        raise HandOver("attention_mask", "a row is nothing but padding")
    return [row[row.shape[0] - n :].tolist() for row, n in zip(input_ids, lengths.tolist(), strict=True)]
