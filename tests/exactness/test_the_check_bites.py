"""The comparison of bits fails where it should, and the probe finds kernels out before they are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention, silu

import paceline
from exactness.decoding import Job, PlainRuns, RandomTrees, decode
from exactness.models import build
from exactness.subjects import Subject, job
from paceline.model import inspect, numerics
from paceline.model.attention import batch_invariant_attention
from paceline.model.decoder import Decoder
from paceline.model.hf import HFTarget
from paceline.model.interface import ATTENTION_NAME
from paceline.model.pool import PAGE_SIZE, LayerCache, PagePool
from paceline.model.probe import REFERENCE, is_even, proven_row_counts
from paceline.model.rows import TAIL, Rows

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def pytorch_kernels(monkeypatch: pytest.MonkeyPatch):
    """The faults here are those of PyTorch's kernels; test_native.py plants others."""
    monkeypatch.setattr(numerics, "library", lambda: None)
    monkeypatch.setattr("paceline.model.forward.library", lambda: None)


def differs(plain: PlainRuns, one: Job, budget: int, seed: int = 0) -> bool:
    """True if trees change a bit or a token."""
    drafter = RandomTrees(plain, [one], seed, fill=True)
    try:
        return plain.differences([one], decode(plain.target, [one], drafter, budget)) != []
    except AssertionError:  # the drafter notices that the text is another
        return True


def attention_in_slot_order(
    query: torch.Tensor, cache: LayerCache, rows: Rows, scaling: float, window: int = 0, softcap: float = 0.0
) -> torch.Tensor:
    """Correct attention over a tree, masked, which adds up the keys in the order of their slots."""
    repeats = query.shape[1] // cache.shape.num_kv_heads
    keys, values = (t.transpose(0, 1).flatten(1, 2).repeat_interleave(repeats, 0) for t in (cache.keys, cache.values))
    seen = (rows.tail_bias(0) == 0).reshape(-1, TAIL).numpy()
    mask = torch.zeros(len(rows), keys.shape[1], dtype=torch.bool)
    for row, place in enumerate(rows.places):
        group = row // rows.rows_per_group
        block = rows.block_pages[place // rows.blocks.shape[1]]
        mask.view(len(rows), -1, PAGE_SIZE)[row, block[: max(rows.tiles[group] - 1, 0)]] = True
        mask[row, rows.tail_slots[group][seen[row]]] = True
    out = scaled_dot_product_attention(query.transpose(0, 1)[None], keys[None], values[None], mask, scale=scaling)
    return out[0].transpose(0, 1).float()


def test_attention_in_slot_order_is_right_up_to_rounding_and_found_out(monkeypatch: pytest.MonkeyPatch):
    subject = Subject("llama")
    subject.decoder.row_counts = (REFERENCE,)  # so that the slots alone can make a difference
    jobs = [job(90, 1, 30), job(150, 2, 30, temperature=0.7)]
    canonical = [subject.plain[one] for one in jobs]
    assert not any(differs(subject.plain, one, 12) for one in jobs)
    monkeypatch.setattr("paceline.model.forward.batch_invariant_attention", attention_in_slot_order)
    plain = PlainRuns(subject.target)
    assert plain.differences(jobs, [decode(subject.target, [one])[0] for one in jobs]) == []
    for one, trace in zip(jobs, canonical, strict=True):
        np.testing.assert_allclose(plain[one].rows, trace.rows, rtol=0, atol=1e-4)
    assert all(differs(plain, one, 12, seed) for one in jobs for seed in range(3))


def unproven(architecture: str, path: numerics.NumericPath, **changes: int) -> Decoder:
    """A decoder on a numeric path that nobody has asked about."""
    model = build(architecture, **changes)
    parts = inspect.anatomy(model)
    numerics.apply(model, path)
    model.config._attn_implementation = ATTENTION_NAME
    pool = PagePool(parts.layers, 33, model.dtype, model.device)
    return Decoder(model, pool, (REFERENCE,), parts.max_length)


def faulty_counts(decoder: Decoder, vocab_size: int) -> set[int]:
    """Row counts at which real requests get other bits than at the reference."""
    decoder.row_counts = (REFERENCE,)
    target = HFTarget(decoder, vocab_size, 640, "unproven")
    plain = PlainRuns(target)
    jobs = [job(100, 1, 20), job(70, 2, 20, temperature=1.0)]
    known = [plain[one] for one in jobs]
    assert all(known)
    faulty = set()
    for count in range(1, 15):
        decoder.row_counts = (count,)
        if any(differs(plain, one, count - 1) for one in jobs):
            faulty.add(count)
    return faulty


@pytest.mark.parametrize("width", [172, 173])
def test_the_probe_finds_stock_activations_out(width: int, monkeypatch: pytest.MonkeyPatch):
    if is_even(silu, [torch.zeros(1)]):
        pytest.skip("this machine's silu does not care where a value stands")
    monkeypatch.setattr(numerics, "WholeVectors", lambda activation: activation)
    decoder = unproven("llama", numerics.paths(torch.float32, CPU)[0], intermediate_size=width)
    proven = set(proven_row_counts(decoder, 211, 640, seconds=60))
    faulty = faulty_counts(decoder, 211)
    assert faulty
    assert not faulty & proven
    assert all(count * width % 16 == 0 for count in proven)


def test_whole_vectors_mend_the_same_activations():
    decoder = unproven("llama", numerics.paths(torch.float32, CPU)[0], intermediate_size=173)
    assert set(range(1, 15)) <= set(proven_row_counts(decoder, 211, 640, seconds=60))
    assert not faulty_counts(decoder, 211)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_probe_finds_stock_products_out(architecture: str):
    decoder = unproven(architecture, numerics.NumericPath("stock", None))
    proven = set(proven_row_counts(decoder, 211, 640, seconds=60))
    assert not faulty_counts(decoder, 211) & proven


def test_a_model_whose_bits_depend_on_place_at_every_count_is_refused(monkeypatch: pytest.MonkeyPatch):
    if is_even(silu, [torch.zeros(1)]):
        pytest.skip("this machine's silu does not care where a value stands")
    monkeypatch.setattr(numerics, "WholeVectors", lambda activation: activation)
    with pytest.raises(paceline.ModelError, match="different bits beside different neighbours"):
        Subject("llama", intermediate_size=173)


@pytest.mark.parametrize("kernel", [torch.exp, torch.tanh, torch.cos, torch.sin, torch.rsqrt])
def test_what_attention_and_norms_rely_on_is_even(kernel):
    assert is_even(kernel, [torch.zeros(1)])


def test_an_operation_with_an_odd_end_is_found_uneven():
    def uneven(values: torch.Tensor) -> torch.Tensor:
        whole = len(values) // 16 * 16
        return torch.cat([values[:whole] / 3, values[whole:] * (1 / 3)])

    assert not is_even(uneven, [torch.zeros(1)])
    assert is_even(lambda values: values / 3, [torch.zeros(1)])


def test_the_probe_finds_out_what_a_neighbour_further_on_changes(monkeypatch: pytest.MonkeyPatch):
    def leaky(query: torch.Tensor, cache: LayerCache, rows: Rows, *how: float, **more: float) -> torch.Tensor:
        return batch_invariant_attention(query, cache, rows, *how, **more) * (
            1.000001 if rows.positions.max() > 150 else 1
        )

    monkeypatch.setattr("paceline.model.forward.batch_invariant_attention", leaky)
    with pytest.raises(paceline.ModelError, match="different bits beside different neighbours"):
        Subject("llama")
