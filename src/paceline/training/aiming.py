"""The attention of a head's first layer before the first step: at what stands where, by distance.

A fresh layer looks at all of the text alike, so what the last tokens' states say is a hundredth of what it sees, and it
learns for long where to look. Here each head is given a constant part of its queries and keys, whose rotations by
position agree best at one distance: 1, 2, 3, ... One group of heads looks at the block's pending token instead. What is
constant is found by regression: a direction along which states are 1 on the average, and those to be left out 0.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch

from paceline.heads.block import BlockHead

_DISTANCES = (1, 2, 3, 4, 6, 8)  # of the text's last token from the slots of a block
_PENDING = 3  # about half a block behind the slots
_RIDGE = 0.02  # of the mean of squares
_SHARPER = 1.5  # gain of queries and keys, where they are normed


@torch.no_grad()
def aim(head: BlockHead, states: torch.Tensor, tokens: torch.Tensor) -> None:
    """Aim a fresh head's first layer.

    Args:
        head: bound to its target.
        states: (R, n * H) taps of a text.
        tokens: (T,) its tokens.
    """
    assert head.embed_tokens is not None
    layer: Any = head.layers[0]
    attention, size, config = layer.self_attn, head.head_size, head.config.layers
    groups = config.num_key_value_heads
    text = head.hidden_norm(head.fc(states.float()))
    pending = layer.input_layernorm(head.embed_tokens(tokens).float())
    mask = layer.input_layernorm(head.embed_tokens(tokens.new_full((len(text),), head.config.mask_token_id)).float())
    anybody = _constant([pending, mask], [])
    in_text, in_pending = _constant([text], [pending, mask]), _constant([pending], [text, mask])
    key = torch.zeros(size)
    key[: size // 4] = 2.0
    for group, weight in enumerate(attention.k_proj.weight.split(size)):
        weight += key[:, None] * (in_pending if 0 < group == groups - 1 else in_text)
    frequencies: torch.Tensor = head.rotary_emb.inv_freq
    distances = cycle(_DISTANCES)
    for index, weight in enumerate(attention.q_proj.weight.split(size)):
        group = index * groups // config.num_attention_heads
        distance = _PENDING if 0 < group == groups - 1 else next(distances)
        weight += _turned(key, frequencies, distance)[:, None] * anybody
    if hasattr(attention, "q_norm"):
        attention.q_norm.weight.fill_(_SHARPER)
        attention.k_norm.weight.fill_(_SHARPER)


def _turned(key: torch.Tensor, frequencies: torch.Tensor, distance: float) -> torch.Tensor:
    """What, rotated by a position, agrees best with `key` rotated by one that is `distance` before it."""
    angles, half = frequencies * distance, len(key) // 2
    return torch.cat([key[:half] * angles.cos(), -key[:half] * angles.sin()])


def _constant(ones: list[torch.Tensor], zeros: list[torch.Tensor]) -> torch.Tensor:
    """(h,) a direction along which some rows (R, h) are about 1 and others 0: a ridge regression."""
    rows = torch.cat([*ones, *zeros])
    wanted = torch.cat([torch.ones(sum(map(len, ones))), torch.zeros(sum(map(len, zeros)))])
    gram = rows.T @ rows / len(rows)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    found: torch.Tensor = torch.linalg.solve(gram, rows.T @ wanted / len(rows))
    return found
