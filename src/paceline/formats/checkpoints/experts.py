"""Experts that a folder holds one by one and the model of transformers as one parameter: a matrix over all rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BlockRows
from paceline.formats.checkpoint import StoredWeight

Reader = Callable[[], StoredWeight]
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+)\.weight")
# The parameter that a linear of each expert is part of, and which part.
_PARTS = {
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
    "down_proj": ("down_proj", 0),
    "w1": ("gate_up_proj", 0),
    "w3": ("gate_up_proj", 1),
    "w2": ("down_proj", 0),
}
_RENAMED = {".block_sparse_moe.": ".mlp."}  # Mixtral's


def merged(readers: Mapping[str, Reader], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Reader]:
    """Readers by the model's names: linears of experts become parts of what the model has in one."""
    whole: dict[str, Reader] = {}
    parts: dict[str, dict[tuple[int, int], Reader]] = {}
    for name, reader in readers.items():
        for old, new in _RENAMED.items():
            name = name if name in shapes else name.replace(old, new)
        match = _EXPERT.fullmatch(name)
        parameter, part = _PARTS.get(match[3], ("", 0)) if match else ("", 0)
        if match and f"{match[1]}.{parameter}" in shapes:
            parts.setdefault(f"{match[1]}.{parameter}", {})[int(match[2]), part] = reader
        else:
            whole[name] = reader
    return whole | {name: partial(_read, name, shapes[name], experts) for name, experts in parts.items()}


def _read(name: str, shape: tuple[int, ...], readers: dict[tuple[int, int], Reader]) -> StoredWeight:
    """Expert after expert, the rows of its gate before those above."""
    num_parts = 1 + max(part for _, part in readers)
    wanted = [(expert, part) for expert in range(shape[0]) for part in range(num_parts)]
    if sorted(readers) != wanted:
        raise ModelError(f"{name}: {len(readers)} matrices of experts; allowed: {num_parts} of each of {shape[0]}")
    first = readers[0, 0]()
    join = _joined_blocks if isinstance(first.value, BlockRows) else _joined_floats
    return join(name, shape, first, [readers[key] for key in wanted[1:]])


def _joined_blocks(name: str, shape: tuple[int, ...], first: StoredWeight, rest: list[Reader]) -> StoredWeight:
    """One matrix of blocks, filled a part at a time."""
    start = first.value
    assert isinstance(start, BlockRows)
    data = torch.empty((shape[0] * shape[1], start.data.shape[1]), dtype=torch.uint8)
    done, is_exact = 0, True
    for reader in [lambda: first, *rest]:
        weight = reader()
        rows = _alike(name, weight.value, start)
        if done + rows.num_rows > len(data):
            raise ModelError(f"{name}: more rows than its {len(data)}")
        data[done : done + rows.num_rows] = rows.data
        done, is_exact = done + rows.num_rows, is_exact and weight.is_exact
    if done < len(data):
        raise ModelError(f"{name}: {done} rows; allowed: {len(data)}")
    return StoredWeight(name, first.stored_as, BlockRows(start.type, data, start.k), is_exact)


def _alike(name: str, value: BlockRows | torch.Tensor, start: BlockRows) -> BlockRows:
    """Rows that can stand below others. An order of features is one matrix's own."""
    is_alike = isinstance(value, BlockRows) and value.type == start.type and value.k == start.k
    if not isinstance(value, BlockRows) or not is_alike or value.order is not None:
        raise ModelError(f"{name}: its experts are stored in several ways; allowed: one, without an order of features")
    return value


def _joined_floats(name: str, shape: tuple[int, ...], first: StoredWeight, rest: list[Reader]) -> StoredWeight:
    """One tensor (E, rows, K)."""
    values = [weight.value for weight in (first, *(reader() for reader in rest))]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if len(tensors) != len(values) or sum(t.numel() for t in tensors) != torch.Size(shape).numel():
        raise ModelError(f"{name}: its experts are not stored alike, or of other shapes than {list(shape)}")
    return StoredWeight(name, first.stored_as, torch.cat(tensors).view(shape))
