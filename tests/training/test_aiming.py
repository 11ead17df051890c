"""A fresh head looks at the text's last tokens and at the pending one, wherever the block stands."""

from __future__ import annotations

import pytest
import torch

from paceline.heads.block import BlockHead
from paceline.training.aiming import aim
from training import tiny

TEXT = 60


def looks(head: BlockHead, states: torch.Tensor, pending: int, start: int) -> torch.Tensor:
    """(heads, TEXT + block) shares of attention of the block's first slot, written out."""
    layer, config = head.layers[0], head.config
    attention, size = layer.self_attn, head.head_size
    [(keys, _), *_] = head.context([states[None]], torch.arange(start, start + TEXT)[None])
    tokens = torch.tensor([pending, *[config.mask_token_id] * (config.block_size - 1)])
    inputs = layer.input_layernorm(head.embed_tokens(tokens))
    around = head.rotary_emb(inputs[None], (start + TEXT + torch.arange(config.block_size))[None])
    queries, own = (
        norm(project(inputs).view(1, config.block_size, -1, size)).transpose(1, 2)
        for norm, project in ((attention.q_norm, attention.q_proj), (attention.k_norm, attention.k_proj))
    )
    queries, own = head._rotate(queries, own, *around)
    everything = torch.cat([keys.transpose(0, 1), own[0]], 1).repeat_interleave(queries.shape[1] // own.shape[1], 0)
    return (queries[0, :, :1] @ everything.transpose(1, 2) * size**-0.5).softmax(-1)[:, 0]


@pytest.mark.parametrize("start", [0, 30])
@torch.no_grad()
def test_heads_look_at_what_is_near(start: int) -> None:
    torch.manual_seed(start)
    target = tiny.target()
    head = tiny.head(taps=(2,), num_heads=6, num_kv_heads=3, head_dim=32)
    head.bind(target)
    before = head.layers[0].self_attn.q_proj.weight.clone()
    states = torch.randn(TEXT, tiny.WIDTH) + 0.7 * torch.randn(tiny.WIDTH)
    aim(head, states, torch.randint(1, tiny.VOCABULARY, (TEXT,)))
    assert not torch.equal(before, head.layers[0].self_attn.q_proj.weight)
    shares = torch.stack([looks(head, states, pending, start) for pending in range(1, 9)]).mean(0)
    for index in range(4):  # by the first two groups of keys
        near = shares[index, TEXT - 8 : TEXT].sum()
        assert near > 0.4, (index, near)
    for index in (4, 5):
        assert shares[index, TEXT] > 3 / shares.shape[1]  # three times of what looking at all alike gives
