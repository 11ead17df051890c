"""The comparison of bits fails where it should: plain attention over a tree, and kernels with odd ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from exactness.conftest import Subjects
from exactness.decoding import PlainRuns, RandomTrees, decode
from exactness.subjects import job
from paceline.target.pool import PAGE_SIZE, LayerCache
from paceline.target.rows import TAIL, Rows

JOBS = [job(90, 1, 40), job(150, 2, 40, temperature=0.7)]


def attention_in_slot_order(
    query: torch.Tensor, cache: LayerCache, rows: Rows, scaling: float, window: int = 0, softcap: float = 0.0
) -> torch.Tensor:
    """Correct attention that sums the keys in the order of their slots, whatever the paths are."""
    keys, values = (t.transpose(0, 1).flatten(1, 2)[None] for t in (cache.keys, cache.values))
    groups = query.shape[1] // cache.shape.num_kv_heads
    mask = torch.zeros(len(rows), keys.shape[2], dtype=torch.bool)
    group = np.repeat(np.arange(len(rows.tiles)), rows.rows_per_group)
    tail_seen = (rows.tail_bias(0) == 0).expand(-1, -1, rows.rows_per_group, -1, -1).reshape(-1, TAIL).numpy()
    for row in range(len(rows)):
        table = rows.block_pages[rows.places[row] // rows.blocks.shape[1]]
        for page in table[: max(rows.tiles[group[row]] - 1, 0)]:
            mask[row, page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = True
        mask[row, rows.tail_slots[group[row]][tail_seen[row]]] = True
    out = scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys.repeat_interleave(groups, 1),
        values.repeat_interleave(groups, 1),
        attn_mask=mask,
        scale=scaling,
    )
    return out[0].transpose(0, 1).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_attention_in_slot_order_is_found_out(subjects: Subjects, dtype, monkeypatch: pytest.MonkeyPatch):
    subject = subjects("llama", dtype)
    canonical = [subject.plain[one] for one in JOBS]
    monkeypatch.setattr("paceline.target.hf.canonical_attention", attention_in_slot_order)
    plain = PlainRuns(subject.target)
    assert plain.differences(JOBS, decode(subject.target, JOBS[:1]) + decode(subject.target, JOBS[1:])) == []
    first = np.stack([plain[one].rows[0] for one in JOBS])
    np.testing.assert_allclose(
        first, [trace.rows[0] for trace in canonical], rtol=0, atol=1e-5 if dtype == torch.float32 else 0.5
    )
    found = [differs(plain, one, seed) for one in JOBS for seed in range(3)]
    assert all(found)


def differs(plain: PlainRuns, one, seed: int) -> bool:
    try:
        return plain.differences([one], decode(plain.target, [one], RandomTrees(plain, [one], seed, fill=True))) != []
    except AssertionError:
        return True
