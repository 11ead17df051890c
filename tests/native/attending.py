"""Random scenes of attention, and two ways to attend over them: PyTorch's, the reference, and the kernels'."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch

from exactness.scenes import CPU, Case, Scene
from paceline.model.attention import batch_invariant_attention
from paceline.model.frames import set_trees
from paceline.model.pool import LayerShape
from paceline.model.rows import TreeWork, tree_rows
from paceline.native.attention import attend_ops
from paceline.native.frame import Frame
from paceline.native.library import library
from paceline.native.ops import run

Way = Callable[[Scene, Sequence[TreeWork], torch.Tensor], torch.Tensor]  # ... -> (R, H, D_v) float32

LENGTHS = (0, 1, 62, 63, 64, 65, 127, 300, 448, 511, 512, 513, 575, 1100)
CHUNKS = (1, 37, 64, 100, 500)
WINDOWS = (0, 0, 0, 1, 63, 64, 65, 100, 700)


def by_torch(scene: Scene, work: Sequence[TreeWork], query: torch.Tensor) -> torch.Tensor:
    rows = tree_rows(work, len(query), CPU)
    return batch_invariant_attention(query, scene.layer, rows, **scene.case.how)


def by_kernels(scene: Scene, work: Sequence[TreeWork], query: torch.Tensor) -> torch.Tensor:
    frame = Frame(library(), scene.pool.num_pages)
    set_trees(frame, work)
    return attended(frame, scene, query)


def attended(frame: Frame, scene: Scene, query: torch.Tensor) -> torch.Tensor:
    """What the kernels make of a frame's rows; rows beyond them are left alone."""
    found = library()
    assert found is not None
    num_rows, num_heads, _ = query.shape
    out = torch.full((num_rows + 2, num_heads, scene.case.shape.value_dim), 7.0)
    more = torch.cat([query, query[:1], query[:1]])
    layer = scene.layer
    run(found, attend_ops(out, more, layer.keys, layer.values, frame, **scene.case.how))
    assert (out[num_rows:] == 7).all()
    return out[:num_rows]


needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels")
WAYS = [pytest.param(by_torch, id="torch"), pytest.param(by_kernels, id="native", marks=needs_kernels)]


def random_case(seed: int, way: Way) -> Case:
    """Trees of all shapes at positions around the edges of tiles and chunks.

    Which shapes PyTorch's products keep their bits at is measured at load (probe.py); odd sizes are not among them.
    """
    rng = random.Random(seed)
    is_odd = way is by_kernels
    heads, group = rng.choice([(1, 1), (2, 3), (5, 1), (3, 2), (1, 8), (1, 7), (1, 70)][: 7 if is_odd else 5])
    window, chunk = rng.choice(WINDOWS), 0
    if rng.random() < 0.2:
        window, chunk = 0, rng.choice(CHUNKS)
    dim = rng.choice([1, 5, 16, 20, 33, 64, 80, 96] if is_odd else [4, 12, 20, 36, 64])
    return Case(
        shape=LayerShape(heads, dim, rng.choice([dim, dim, 24, 5, 72][: 5 if is_odd else 3])),
        group=group,
        trees=tuple(random_tree(rng) for _ in range(rng.choice([1, 1, 2, 3, 9]))),
        window=window,
        softcap=rng.choice([0.0, 0.0, 2.0]),
        dtype=rng.choice([torch.float32, torch.bfloat16]),
        padding=0,
        seed=seed,
        relative=rng.choice(["", "slopes", "distances"]),
        chunk=chunk,
        sinks=rng.choice([0.0, 0.0, 2.0, 200.0]),
    )


def random_tree(rng: random.Random) -> tuple[int, tuple[int, ...]]:
    """Committed positions, and each row's parent: a chain, a bush, a fan or anything."""
    back = rng.choice([0, 1, 3, 60])
    count = rng.choice([1, 2, 5, 12, 60 if back < 3 else 24])
    return rng.choice(LENGTHS), (-1, *(rng.randint(max(0, i - back), i) for i in range(count - 1)))
