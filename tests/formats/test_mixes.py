"""Which blocks a weight gets."""

from __future__ import annotations

import pytest

from paceline.errors import ConfigError
from paceline.formats.blocks import BlockType
from paceline.formats.mixes import block_types

Shapes = dict[str, tuple[int, int]]


def llama(layers: int, hidden: int = 256, inner: int = 1024, is_tied: bool = False) -> Shapes:
    shapes = {"model.embed_tokens.weight": (1000, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}self_attn.{part}.weight"] = (hidden, hidden)
        for part in ("gate_proj", "up_proj"):
            shapes[f"{prefix}mlp.{part}.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
    return shapes if is_tied else {**shapes, "lm_head.weight": (1000, hidden)}


def test_int8_is_the_same_everywhere() -> None:
    assert set(block_types(llama(3), "int8").values()) == {BlockType.Q8_0}


def test_int4_gives_half_of_the_values_and_the_head_more() -> None:
    """Layers as llama.cpp chooses them among 16."""
    types = block_types(llama(16), "int4")
    more = {name for name, kind in types.items() if kind == BlockType.Q6_K}
    layers = (0, 1, 4, 7, 10, 13, 14, 15)
    wanted = {f"model.layers.{i}.{part}.weight" for i in layers for part in ("self_attn.v_proj", "mlp.down_proj")}
    assert more == wanted | {"lm_head.weight"}
    assert {kind for name, kind in types.items() if name not in more} == {BlockType.Q4_K}


def test_an_embedding_that_is_the_head_gets_a_heads_bits() -> None:
    assert block_types(llama(2, is_tied=True), "int4")["model.embed_tokens.weight"] == BlockType.Q6_K


@pytest.mark.parametrize(
    ("shape", "name", "wanted"),
    [
        ((10, 688), "model.layers.1.mlp.up_proj.weight", BlockType.Q4_K),  # 80 more
        ((1024, 64), "model.layers.1.mlp.up_proj.weight", BlockType.Q4_1),
        ((1023, 64), "model.layers.1.mlp.up_proj.weight", BlockType.Q8_0),  # small
        ((1024, 64), "lm_head.weight", BlockType.Q8_0),
        ((10, 228), "model.layers.1.mlp.up_proj.weight", BlockType.Q4_K),  # 28 more: less than an eighth of 228
        ((290, 227), "model.layers.1.mlp.up_proj.weight", BlockType.Q4_1),
        ((10, 256), "transformer.h.0.attn.c_attn.weight", BlockType.Q5_K),
        ((10, 256), "transformer.wpe.weight", BlockType.Q8_0),
        ((10, 256), "model.layers.0.mlp.gate.weight", BlockType.Q8_0),
    ],
)
def test_where_blocks_of_256_would_be_filled_up_too_much(shape: tuple[int, int], name: str, wanted: BlockType) -> None:
    assert block_types({name: shape, "model.layers.7.x.weight": (1, 1)}, "int4")[name] == wanted


def test_a_mix_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"'int3'; allowed: int8, int4"):
        block_types({}, "int3")
