"""Families that pick keys by an indexer: what a row picks depends on its path alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from exactness.scenes import CPU, Case, Scene, stored
from models.families import Loaded, check, tiny
from models.lightly import check_lightly
from paceline.model.picking import Picks, biases_of
from paceline.model.pool import LayerShape
from paceline.model.rows import TreeWork, tree_rows
from paceline.native.library import library

_LATENT = {"q_lora_rank": 24, "kv_lora_rank": 18, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6, "v_head_dim": 12}
_INDEXER = {"index_n_heads": 8, "index_head_dim": 14, "index_topk": 23}
# PyTorch computes the gates between an expert's products: whole vectors.
_EXPERTS = {
    "hidden_size": 64,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "mlp_layer_types": ["dense", "sparse"],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "deepseek_v32": {**_EXPERTS, **_LATENT, **_INDEXER},
    "glm_moe_dsa": {**_EXPERTS, **_LATENT, **_INDEXER},
    "hy_v4": {**_EXPERTS, **_LATENT, **_INDEXER},
    "axk2": {**_EXPERTS, **_LATENT, **_INDEXER},
    "dots3_note_text": {**_EXPERTS, **_LATENT, **_INDEXER},
}


needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels")


def loaded(family: str) -> Loaded:
    found = Loaded(tiny(family, **FAMILIES[family]))
    assert any(layer.shape == LayerShape(1, 14, 1) for layer in found.target.decoder.pool.layers), "it picks keys"
    return found


@needs_kernels
def test_it_is_exact():
    found = loaded("deepseek_v32")
    check(found)
    found.llm.close()


@needs_kernels
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "deepseek_v32"])
def test_its_text_is_transformers_own(family: str):
    found = loaded(family)
    check_lightly(found)
    found.llm.close()


TREE = (-1, 0, 1, 1, 0, 4, 3)


def scene_of(length: int) -> Scene:
    """Keys of small integers: sums are exact, and many scores are the same."""
    scene = Scene(Case(LayerShape(1, 6, 1), 1, ((length, TREE), (70, (-1, 0))), 0, 0.0, torch.float32, 0, length))
    scene.layer.keys.copy_(scene.layer.keys.round())
    return scene


def picks_of(scene: Scene, rows: slice = slice(None), most: int = 9) -> Picks:
    generator = torch.Generator().manual_seed(4)
    query = torch.randint(-2, 3, (scene.num_rows, 3, 6), generator=generator).float()
    weights = torch.randint(-2, 3, (scene.num_rows, 3), generator=generator).float()
    return Picks(query[rows], torch.zeros(0), weights[rows], 0.5, most)


def expected(picks: Picks, row: int, keys: torch.Tensor) -> list[int]:
    """The positions that a row picks among its keys (T, D), the earlier ones of equal scores."""
    scores = np.maximum(picks.query[row].double().numpy() @ keys.double().numpy().T * picks.scaling, 0)
    total = picks.weights[row].double().numpy() @ scores
    return sorted(sorted(range(len(total)), key=lambda i: (-total[i], i))[: picks.most])


def picked(scene: Scene, work: list[TreeWork], picks: Picks) -> list[list[int]]:
    """The positions that each row picked, itself and those before it alone."""
    rows = tree_rows(work, len(picks.query), CPU)
    tail, shared = biases_of(picks, scene.layer, rows)
    found = []
    for row, position in enumerate(rows.positions):
        first = (position // 64 - 1) * 64
        places = [first + i for i in range(128) if tail[row, 0, 0, 0, i] == 0]
        if shared is not None:
            block, place = divmod(int(rows.places[row]), rows.blocks.shape[1])
            tiles = shared.view(len(rows.blocks), -1, *shared.shape[1:])[block, :, 0, place, 0].reshape(-1)
            places += [i for i in range(min(max(first, 0), len(tiles))) if tiles[i] == 0]
        found.append(sorted(i for i in places if 0 <= i <= position))
    return found


@pytest.mark.parametrize("length", [0, 3, 61, 64, 130, 300])
def test_a_row_picks_the_best_of_its_path_and_of_equals_the_earlier(length: int):
    scene = scene_of(length)
    picks = picks_of(scene)
    together = picked(scene, scene.work, picks)
    for row, slots in enumerate(scene.path_slots()):
        keys = stored(scene.layer.keys, slots)[:, 0]
        assert together[row] == expected(picks, row, keys)
        other = scene.copy(slots)
        alone = picked(scene, [TreeWork(other, [0], [-1])], picks_of(scene, slice(row, row + 1)))
        assert alone == [together[row]]
        scene.pool.release(other)
