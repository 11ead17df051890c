"""The bytes that a forward reads: of weights, and of keys and values for each token before it."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.linears import NativeEmbedding, NativeLinear
from paceline.model.numerics import weight_bytes
from paceline.model.pool import PagePool


def token_bytes(pool: PagePool) -> int:
    """Bytes that a token's keys and values take in all layers."""
    shapes = [(layer.shape, layer.keys.element_size()) for layer in pool.layers]
    return sum(shape.num_kv_heads * (shape.key_dim + shape.value_dim) * size for shape, size in shapes)


def bytes_read(model: Any) -> int:
    """Bytes of weights that one forward reads: all but the input embedding, of which it takes a few rows.

    A tied embedding is read as the output layer's weight. Weights that Paceline laid out anew count in that
    layout, which is wider than the checkpoint's where the processor lacks its number format.
    """
    embedding = model.get_input_embeddings()
    if isinstance(embedding, NativeEmbedding):
        is_head = any(isinstance(m, NativeLinear) and m.packed is embedding.packed for m in model.modules())
        return weight_bytes(model) - (0 if is_head else embedding.packed.num_bytes)
    heads = [module.weight.data_ptr() for module in model.modules() if type(module) is torch.nn.Linear]
    if type(embedding) is not torch.nn.Embedding or embedding.weight.data_ptr() in heads:
        return weight_bytes(model)
    return weight_bytes(model) - embedding.weight.numel() * embedding.weight.element_size()
