"""Attention over paged keys and draft trees: both ways keep the same contract, and agree with each other."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from exactness.scenes import Case, Scene
from native.attending import WAYS, Way, attended, by_kernels, by_torch, needs_kernels, random_case
from paceline.model.frames import set_chunk, set_trees
from paceline.model.pool import LayerShape
from paceline.model.rows import TreeWork
from paceline.native.attention import attend_ops, write_op
from paceline.native.frame import Frame, FrameSequence
from paceline.native.library import library
from paceline.native.ops import run

ways = pytest.mark.parametrize("way", WAYS)
ROUNDING = 1e-5


def make(
    *trees: tuple[int, tuple[int, ...]], window: int = 0, dtype: torch.dtype = torch.float32, relative: str = ""
) -> Scene:
    return Scene(Case(LayerShape(2, 20, 12), 3, trees, window, 0.0, dtype, 0, 3, relative=relative))


def chain(count: int) -> tuple[int, ...]:
    return tuple(range(-1, count - 1))


@needs_kernels
@pytest.mark.parametrize("seed", range(60))
def test_both_ways_agree(seed: int):
    case = random_case(seed, by_kernels)
    scene = Scene(case)
    found, expected = (way(scene, scene.work, scene.query) for way in (by_kernels, by_torch))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@ways
@pytest.mark.parametrize("seed", range(100, 130))
def test_a_drafted_row_has_the_bits_of_plain_decoding(way: Way, seed: int):
    case = random_case(seed, way)
    scene = Scene(case)
    together = way(scene, scene.work, scene.query)
    for row, slots in random.Random(seed).sample(list(enumerate(scene.path_slots())), min(6, scene.num_rows)):
        other = scene.copy(slots)
        alone = way(scene, [TreeWork(other, [0], [-1])], scene.query[row : row + 1])
        assert torch.equal(alone[0], together[row]), f"row {row} of {case}"
        scene.pool.release(other)


@ways
@pytest.mark.parametrize("seed", range(200, 215))
def test_neighbours_and_their_order_change_no_bit(way: Way, seed: int):
    case = random_case(seed, way)
    scene = Scene(case)
    ends = np.cumsum([len(item.tokens) for item in scene.work])[:-1].tolist()
    queries = scene.query.tensor_split(ends)
    together = way(scene, scene.work, scene.query).tensor_split(ends)
    order = random.Random(seed).sample(range(len(queries)), len(queries))
    shuffled = [scene.work[i] for i in order], torch.cat([queries[i] for i in order])
    parts = way(scene, *shuffled).split([len(queries[i]) for i in order])
    for part, i in zip(parts, order, strict=True):
        assert torch.equal(part, together[i])
        assert torch.equal(way(scene, [scene.work[i]], queries[i]), together[i])


@ways
def test_rows_after_the_first_see_those_of_an_earlier_forward(way: Way):
    scene = make((61, (-1, 0, 0, 1, 3, 2)))
    [work] = scene.work
    later = TreeWork(work.sequence, work.tokens, work.parents, first=3)
    whole, rest = way(scene, [work], scene.query), way(scene, [later], scene.query[3:])
    assert torch.equal(rest, whole[3:])


@ways
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf])
def test_what_is_not_on_the_path_is_never_touched(way: Way, garbage: float):
    scene = make((63, (-1, 0, 0, 1, 2)))
    [work] = scene.work
    before = way(scene, scene.work, scene.query)
    page, place = divmod(int(work.sequence.slots(np.array([63 + 2]))[0]), 64)
    scene.layer.keys[page, :, place], scene.layer.values[page, :, place] = garbage, garbage
    after = way(scene, scene.work, scene.query)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert not after[[2, 4]].isfinite().any()


@needs_kernels
@pytest.mark.parametrize("seed", range(300, 310))
def test_the_thread_count_changes_no_bit(seed: int):
    case = random_case(seed, by_kernels)
    scene = Scene(case)
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(by_kernels(scene, scene.work, scene.query))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@needs_kernels
@pytest.mark.parametrize("window", [0, 1, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("start", "count"), [(0, 64), (0, 130), (63, 2), (64, 37), (449, 200), (1000, 1)])
def test_a_chunk_of_any_length_has_the_bits_of_decoding(start: int, count: int, dtype: torch.dtype, window: int):
    relative = ("", "slopes", "distances")[(start + count + window) % 3]
    scene = make((start + count, (-1,)), window=window, dtype=dtype, relative=relative)
    query = scene.normal(count, 6, 20)
    sequence, frame = scene.work[0].sequence, Frame(library(), scene.pool.num_pages)
    sequence.length = start
    fed = set_chunk(frame, sequence, [0] * count)
    assert fed.positions.tolist() == list(range(start, start + count))
    chunk = attended(frame, scene, query)
    for row in {0, 1, count // 2, count - 1} & set(range(count)):
        sequence.length = start + row
        alone = by_kernels(scene, [TreeWork(sequence, [0], [-1])], query[row : row + 1])
        assert torch.equal(alone[0], chunk[row])


@needs_kernels
def test_an_operation_outlives_what_the_frame_held():
    scene = make((3, chain(2)), (1100, chain(60)), (70, (-1,)))
    frame, library_ = Frame(library(), scene.pool.num_pages), library()
    num_rows, layer = scene.num_rows, scene.layer
    query, out = scene.query, torch.empty(num_rows, 6, 12)
    ops = attend_ops(out, query, layer.keys, layer.values, frame, **scene.case.how)
    for work in ([scene.work[0]], scene.work, [scene.work[2]]):
        set_trees(frame, work)
        run(library_, ops)
        assert torch.equal(out[: frame.num_rows], by_kernels(scene, work, query[: frame.num_rows]))


@needs_kernels
@pytest.mark.parametrize("pool_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_are_stored_in_their_slots(dtype: torch.dtype, pool_dtype: torch.dtype):
    scene = Scene(Case(LayerShape(2, 70, 12), 1, ((62, (-1, 0, 0, 1)), (5, (-1,))), 0, 0.0, pool_dtype, 0, 1))
    frame = Frame(library(), scene.pool.num_pages)
    set_trees(frame, scene.work)
    keys = torch.randn(2, 70, 5).to(dtype).permute(2, 0, 1)  # no dimension in its usual place
    values = torch.randn(5, 3, 30).to(dtype)[:, 1:, 9:21]
    expected = scene.layer.keys.clone(), scene.layer.values.clone()
    slots = np.concatenate(
        [item.sequence.slots(item.sequence.length + np.arange(len(item.tokens))) for item in scene.work]
    )
    for pool, rows in zip(expected, (keys, values), strict=True):
        pool[slots // 64, :, slots % 64] = rows.to(pool_dtype)
    run(library(), [write_op(scene.layer.keys, scene.layer.values, keys, values, frame)])
    assert torch.equal(scene.layer.keys.nan_to_num(), expected[0].nan_to_num())
    assert torch.equal(scene.layer.values.nan_to_num(), expected[1].nan_to_num())


@needs_kernels
def test_any_strides_and_dtypes_give_the_same_bits():
    scene = make((70, chain(5)), dtype=torch.bfloat16)
    frame, layer = Frame(library(), scene.pool.num_pages), scene.layer
    set_trees(frame, scene.work)
    plain = attended(frame, scene, scene.query)
    query = scene.query.float().permute(2, 0, 1).contiguous().permute(1, 2, 0)
    wide = torch.empty(6, 5, 14, dtype=torch.bfloat16)
    out = wide.transpose(0, 1)[:, :, 1:13]
    run(library(), attend_ops(out, query, layer.keys, layer.values, frame, **scene.case.how))
    assert torch.equal(out, plain.to(torch.bfloat16))


@needs_kernels
@pytest.mark.parametrize("window", [0, 1, 37, 64, 200])
@pytest.mark.parametrize("block", [range(5), range(60, 70), range(130, 290), range(500, 600)])
def test_rows_of_a_block_see_all_of_it(block: range, window: int):
    """From where their windows begin to its end: as a sum over just those keys; in other chunks the same bits."""
    generator = torch.Generator().manual_seed(block.start + window)
    pages = np.random.default_rng(block.start).permutation(12)
    keys, values = (torch.randn(12, 2, 64, 8, generator=generator) for _ in range(2))
    query, count = torch.randn(len(block), 4, 8, generator=generator), len(block)

    def rows(first: int) -> torch.Tensor:
        own = block[first:]
        frame, out = Frame(library(), 12), torch.zeros(len(own), 4, 8)
        slots = [int(pages[p // 64]) * 64 + p % 64 for p in own]
        frame.set([FrameSequence(pages, block.stop, [block.stop - 1] * len(own), slots, owns=own)])
        run(library(), attend_ops(out, query[first:], keys, values, frame, scaling=0.3, window=window))
        return out

    found = rows(0)
    flat = [pool[torch.from_numpy(pages)].transpose(0, 1).reshape(2, -1, 8).double() for pool in (keys, values)]
    for i, place in enumerate(block):
        first = max(place - window + 1, 0) if window else 0
        seen = [part[:, first : block.stop].repeat_interleave(2, 0) for part in flat]
        weights = torch.einsum("hd,hkd->hk", query[i].double() * 0.3, seen[0]).softmax(1)
        assert torch.allclose(found[i].double(), torch.einsum("hk,hkd->hd", weights, seen[1]), atol=1e-5)
    assert torch.equal(rows(count // 2), found[count // 2 :])


GOOD = {"pages": np.array([2]), "committed": 3, "positions": [2], "slots": [130]}
REFUSED = {
    "more pages than the pool": {"pages": np.array([9])},
    "a slot beyond the pool": {"slots": [64 * 9]},
    "fewer pages than positions": {"committed": 65},
    "a path that is too short": {"positions": [4], "drafts": [130, 131], "paths": [[0]]},
    "a path through no draft": {"positions": [3], "drafts": [130], "paths": [[1]]},
    "more drafts than a tile": {"positions": [3], "drafts": [130] * 65, "paths": [[1]]},
    "a slot too few": {"positions": [1, 2]},
    "a path too many": {"paths": [[], []]},
    "a negative position": {"positions": [-1]},
    "a row behind what it sees": {"owns": [3]},
    "a row before its sequence": {"owns": [-1]},
    "rows that stand nowhere": {"positions": [1, 2], "slots": [129, 130], "owns": [1]},
}


@needs_kernels
@pytest.mark.parametrize("what", REFUSED)
def test_a_frame_refuses(what: str):
    frame = Frame(library(), 9)
    frame.set([FrameSequence(**GOOD)])
    with pytest.raises(ValueError, match=r"page|slot|path|draft|zip|stands"):
        frame.set([FrameSequence(**{**GOOD, **REFUSED[what]})])
    frame.set([])
    assert frame.num_rows == 0


@needs_kernels
def test_operations_refuse_what_does_not_fit():
    keys, values = torch.zeros(9, 2, 64, 20), torch.zeros(9, 2, 64, 12)
    query, out, frame = torch.zeros(3, 6, 20), torch.zeros(3, 6, 12), Frame(library(), 9)
    good = {"out": out, "query": query, "key_pool": keys, "value_pool": values, "frame": frame, "scaling": 1.0}
    assert len(attend_ops(**good)) == 2
    for change in (
        {"out": out[:2]},
        {"out": torch.zeros(3, 12, 6).transpose(1, 2)},
        {"out": out.long()},
        {"query": query[:, :5]},
        {"query": query[:, :, :9]},
        {"query": query.double()},
        {"query": query[0]},
        {"key_pool": keys[:, :, :32]},
        {"key_pool": keys.half()},
        {"key_pool": torch.zeros(9, 2, 20, 64).transpose(2, 3)},
        {"value_pool": values[:8]},
        {"value_pool": values[:, :1]},
        {"frame": Frame(library(), 10)},
        {"window": -1},
        {"chunk": -1},
        {"chunk": 5, "window": 5},
        {"softcap": -1.0},
        {"slopes": torch.zeros(5)},
        {"slopes": torch.zeros(6, dtype=torch.bfloat16)},
        {"slopes": torch.zeros(6), "distances": torch.zeros(6, 9)},
        {"distances": torch.zeros(5, 9)},
        {"distances": torch.zeros(6, 0)},
        {"distances": torch.zeros(9, 6).t()},
    ):
        with pytest.raises(ValueError, match=r"."):
            attend_ops(**{**good, **change})
    rows = torch.zeros(3, 2, 20), torch.zeros(3, 2, 12)
    assert write_op(keys, values, *rows, frame)
    for wrong in ((rows[0], rows[0]), (rows[1], rows[1]), (rows[0], rows[1][:2]), (rows[0].long(), rows[1])):
        with pytest.raises(ValueError, match="rows"):
            write_op(keys, values, *wrong, frame)
