"""Which kind of blocks each weight of a model gets, by its name and shape alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from paceline.errors import ConfigError
from paceline.formats.blocks import BLOCKS, BlockType

MIXES = ("int8", "int4")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)\.")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.")
_VALUE = re.compile(r"\.(v_proj|down_proj|fc2|mlp\.c_proj|dense_4h_to_h)\.")  # of values, and out of the MLP
_FUSED = re.compile(r"\.(qkv_proj|query_key_value|c_attn|Wqkv)\.")  # queries, keys and values in one
_DELICATE = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings|router|gate)\.")  # small; errors go far
_LAYER = re.compile(r"\.(\d+)\.")
_SMALL = 1 << 16  # weights of a matrix that is read in no time: fewer bits would cost quality alone
_NARROW = {BlockType.Q4_K: BlockType.Q4_1, BlockType.Q5_K: BlockType.Q8_0, BlockType.Q6_K: BlockType.Q8_0}


def block_types(shapes: Mapping[str, tuple[int, int]], mix: str) -> dict[str, BlockType]:
    """Kinds of blocks for the matrices (N, K) of a model's linears and embeddings, by parameter name.

    "int8" is Q8_0 throughout. "int4" is what llama.cpp's Q4_K_M is: Q6_K for the head, or for the embedding where it is
    the head too, and for every other layer's values and MLP outputs, with those at both ends; Q4_K for the rest. A K
    of no whole 256 is filled up where that adds less than an eighth. Else Q4_1 stands for Q4_K (as near, with 5 bits),
    Q8_0 for the others, and for all of less than 65,536 weights.

    Raises:
        ConfigError: a mix that there is not.
    """
    if mix not in MIXES:
        raise ConfigError(f"a model is quantised to {mix!r}; allowed: {', '.join(MIXES)}")
    if mix == "int8":
        return dict.fromkeys(shapes, BlockType.Q8_0)
    num_layers = 1 + max((_layer(name) for name in shapes), default=-1)
    is_tied = not any(_HEAD.search(name) for name in shapes)
    return {name: _fitting(_four_bits(name, num_layers, is_tied), shape) for name, shape in shapes.items()}


def _four_bits(name: str, num_layers: int, is_tied: bool) -> BlockType:
    if _DELICATE.search(name):
        return BlockType.Q8_0
    if _HEAD.search(name) or (is_tied and _EMBEDDING.search(name)):
        return BlockType.Q6_K
    if _VALUE.search(name) and _gets_more(_layer(name), num_layers):
        return BlockType.Q6_K
    return BlockType.Q5_K if _FUSED.search(name) else BlockType.Q4_K


def _gets_more(layer: int, num_layers: int) -> bool:
    """llama.cpp's `use_more_bits`: the first eighth of the layers, the last, and every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _fitting(wanted: BlockType, shape: tuple[int, int]) -> BlockType:
    rows, k = shape
    filling = -k % BLOCKS[wanted].weights
    if wanted not in _NARROW or 8 * filling < k:
        return wanted
    return _NARROW[wanted] if rows * k >= _SMALL else BlockType.Q8_0
