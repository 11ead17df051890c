"""A block sees the text before its anchor and itself, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paceline.heads.block import BlockHead
from paceline.model.interface import answered_by
from paceline.training.attending import PackedBlocks
from training import tiny

N, A, B, S = 2, 3, 4, 12
DOCUMENTS = torch.tensor([[0] * 7 + [1] * 5, [0] * 12])
ANCHORS = torch.tensor([[2, 5, 9], [1, 4, 7]])


def run(head: BlockHead, tokens: torch.Tensor, taps: list[torch.Tensor]) -> torch.Tensor:
    """Logits (N, A, B, V) of blocks with these tokens (N, A, B)."""
    positions = torch.arange(S).repeat(N, 1)
    context = head.context([tap.view(1, N * S, -1) for tap in taps], positions.view(1, -1))
    step = PackedBlocks(context, ANCHORS, DOCUMENTS, B, head.config.is_causal)
    places = ANCHORS[..., None] + torch.arange(B)
    with answered_by(step), torch.no_grad():
        _, logits = head(tokens.view(1, -1), places.view(1, -1))
    return logits.view(N, A, B, -1)


def subject(**fields: Any) -> tuple[BlockHead, torch.Tensor, list[torch.Tensor]]:
    head = tiny.head(num_layers=2, **fields)
    head.bind(tiny.target())
    for weight in head.layers.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    tokens = torch.randint(1, tiny.VOCABULARY, (N, A, B))
    return head, tokens, [torch.randn(N, S, tiny.WIDTH) for _ in head.config.taps]


def moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(N, A, B) which rows' logits differ."""
    return ((before - after).abs() > 1e-5).any(-1)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_block_does_not_see_another(is_causal: bool) -> None:
    head, tokens, taps = subject(is_causal=is_causal)
    before = run(head, tokens, taps)
    changed = tokens.clone()
    changed[0, 1, 2] = (changed[0, 1, 2] + 1) % tiny.VOCABULARY
    rows = moved(before, run(head, changed, taps))
    assert rows[0, 1].tolist() == ([False, False, True, True] if is_causal else [True] * 4)
    rows[0, 1] = False
    assert not rows.any()


@pytest.mark.parametrize(
    ("place", "seen"), [(0, [0, 1]), (1, [0, 1]), (2, [1]), (4, [1]), (5, []), (7, [2]), (8, [2]), (9, [])]
)
def test_a_block_sees_its_document_before_its_anchor(place: int, seen: list[int]) -> None:
    head, tokens, taps = subject()
    before = run(head, tokens, taps)
    changed = [tap.clone() for tap in taps]
    changed[1][0, place] += 1.0
    rows = moved(before, run(head, tokens, changed))
    assert [block for block in range(A) if rows[0, block].any()] == seen
    assert not rows[1].any()


def test_a_window_hides_what_is_far() -> None:
    head, tokens, taps = subject()
    for layer in head.layers:
        layer.self_attn.sliding_window = 3
    before = run(head, tokens, taps)
    changed = [tap.clone() for tap in taps]
    changed[0][1, 5] += 1.0
    rows = moved(before, run(head, tokens, changed))[1]
    assert rows[2].tolist() == [False] * 4 or rows[2, 0]  # place 5 is two before the anchor 7
    assert rows[2, 0]
    changed[0][1, :5] += 1.0
    near = [tap.clone() for tap in taps]
    near[0][1, 5] += 1.0
    assert not moved(run(head, tokens, near), run(head, tokens, changed))[1, 2, 0]


def test_a_packed_block_is_one_alone() -> None:
    """Against attention written out row by row."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    keys, values = draw(N * S, 1, 8), draw(N * S, 1, 8)
    query, key, value = draw(N * A * B, 2, 8), draw(N * A * B, 1, 8), draw(N * A * B, 1, 8)
    found = PackedBlocks([(keys, values)], ANCHORS, DOCUMENTS, B, False).attend(query, key, value, scaling=0.3)
    row = 0
    for n in range(N):
        for a in range(A):
            anchor = int(ANCHORS[n, a])
            own = slice((n * A + a) * B, (n * A + a + 1) * B)
            text = [n * S + s for s in range(anchor) if DOCUMENTS[n, s] == DOCUMENTS[n, anchor]]
            all_keys, all_values = torch.cat([keys[text], key[own]]), torch.cat([values[text], value[own]])
            for _ in range(B):
                shares = torch.einsum("hd,khd->hk", query[row] * 0.3, all_keys.expand(-1, 2, -1)).softmax(-1)
                wanted = torch.einsum("hk,khd->hd", shares, all_values.expand(-1, 2, -1))
                assert torch.allclose(found[row], wanted, atol=1e-5)
                row += 1
