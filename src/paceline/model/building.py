"""The model of a checkpoint: made without memory, and filled with one weight after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paceline.architectures import auto_class
from paceline.errors import ModelError, first_line
from paceline.formats.at_load import does_more
from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.checkpoint import Checkpoint, StoredWeight
from paceline.formats.contents import StoredKind, summed
from paceline.formats.rounding import quantize
from paceline.model.experts import BlockExperts, is_experts
from paceline.model.quantized import QuantizedEmbedding, QuantizedLinear
from paceline.native.library import VARIABLE, Library, library
from paceline.native.quantized import QuantizedWeight

NEEDS_KERNELS = f"quantised weights need the native kernels: install with a C compiler, without {VARIABLE}=0"


class Builder:
    """Makes the model of a checkpoint, each time anew; `contents` is what the last one was made of."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.contents: list[StoredKind] = []

    def __call__(self) -> PreTrainedModel:
        """See `build`."""
        found: list[StoredKind] = []
        model = build(self._checkpoint, found.append)
        self.contents = summed(found)
        return model


def build(checkpoint: Checkpoint, on_weight: Callable[[StoredKind], None] | None = None) -> PreTrainedModel:
    """The model of a checkpoint, one weight after another; what became of each is told.

    Raises:
        ModelError: without native kernels, or where weights and model do not fit together.
    """
    found = library()
    if checkpoint.float_dtype is None and found is None:
        raise ModelError(NEEDS_KERNELS)
    weights = _begun(checkpoint.weights())
    model = _empty(checkpoint)
    for stored in weights:
        become = _place(model, found if checkpoint.float_dtype is None else None, stored)
        if on_weight is not None:
            on_weight(become)
    _tie(model)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ModelError(f"weights that {type(model).__name__} needs are not there: {', '.join(missing[:5])}")
    return model.eval()


def _begun(weights: Iterator[StoredWeight]) -> Iterator[StoredWeight]:
    """The same, the first one read: what does not fit together is refused before memory is taken for it."""
    held = list(islice(weights, 1))

    def all_of_them() -> Iterator[StoredWeight]:
        while held:
            yield held.pop()
        yield from weights

    return all_of_them()


def _empty(checkpoint: Checkpoint) -> PreTrainedModel:
    config, dtype = deepcopy(checkpoint.config), checkpoint.float_dtype or torch.float32
    try:
        with _without_memory():
            model: PreTrainedModel = auto_class(config).from_config(config, dtype=dtype, attn_implementation="eager")
    except Exception as error:
        raise ModelError(f"transformers makes no model of {checkpoint.name_or_path}: {first_line(error)}") from error
    return model


@contextmanager
def _without_memory() -> Iterator[None]:
    """Parameters that are made in here have a shape and no memory; buffers are real."""
    owner: Any = nn.Module
    register = owner.register_parameter

    def register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        empty = parameter if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, empty)

    owner.register_parameter = register_empty
    try:
        yield
    finally:
        owner.register_parameter = register


def _place(model: PreTrainedModel, found: Library | None, stored: StoredWeight) -> StoredKind:
    """Put a weight where it belongs; tell what it became."""
    if stored.name == "rope_freqs":
        return _scale_rotary(model, stored)
    path, _, kind = stored.name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise ModelError(f"{stored.name} is a weight that {type(model).__name__} has not") from error
    if found is not None and is_experts(module) and isinstance(stored.value, BlockRows):
        return _in_blocks(stored, stored.value, _set_experts(module, kind, found, stored.value))
    blocks = _as_blocks(module, stored.value) if found is not None and kind == "weight" else None
    if found is not None and blocks is not None:
        weight = QuantizedWeight(found, blocks)
        _replace(model, path, module, weight)
        return _in_blocks(stored, blocks, [weight])
    if isinstance(stored.value, torch.Tensor):
        return _as_floats(stored, _set(module, kind, stored))
    raise ModelError(f"{stored.name} is in blocks, which {type(module).__name__} does not multiply by")


def _in_blocks(stored: StoredWeight, blocks: BlockRows, weights: list[QuantizedWeight]) -> StoredKind:
    num_bytes = sum(weight.num_bytes for weight in weights)
    is_exact = stored.is_exact and blocks is stored.value
    return StoredKind(stored.stored_as, 1, blocks.num_rows * blocks.k, num_bytes, blocks.type.name, is_exact)


def _as_floats(stored: StoredWeight, value: torch.Tensor) -> StoredKind:
    words = str(value.dtype).removeprefix("torch.")
    num_bytes = value.numel() * value.element_size()
    return StoredKind(stored.stored_as, 1, value.numel(), num_bytes, words, stored.is_exact)


def _set_experts(module: nn.Module, kind: str, found: Library, blocks: BlockRows) -> list[QuantizedWeight]:
    """Blocks over the rows of all experts, one expert after another."""
    count, *matrix = module._parameters[kind].shape  # type: ignore[union-attr]  # a layer's experts have both
    is_transposed = bool(module.is_transposed)
    rows, k = reversed(matrix) if is_transposed else matrix
    if (blocks.num_rows, blocks.k) != (count * rows, k):
        raise ModelError(f"{kind} is {(blocks.num_rows, blocks.k)}; allowed: {(count * rows, k)}")
    weights = [QuantizedWeight(found, replace(blocks, data=part)) for part in torch.split(blocks.data, rows)]
    del module._parameters[kind]
    setattr(module, kind, BlockExperts(weights, is_transposed))
    return weights


def _as_blocks(module: nn.Module, value: BlockRows | torch.Tensor) -> BlockRows | None:
    """A matrix of a linear, in blocks: those that a file keeps as floats are read at every step all the same."""
    if not isinstance(module, nn.Linear | nn.Embedding | Conv1D) or does_more(module):
        return None
    if isinstance(value, BlockRows):
        return value
    return None if isinstance(module, nn.Embedding) else quantize(value, BlockType.Q8_0)


def _replace(model: PreTrainedModel, path: str, module: nn.Module, weight: QuantizedWeight) -> None:
    wanted = _shape(module)
    if (weight.num_columns, weight.k) != wanted:
        raise ModelError(f"{path} is {(weight.num_columns, weight.k)}; allowed: {wanted}")
    if isinstance(module, nn.Embedding):
        new: nn.Module = QuantizedEmbedding(weight, _scale(module))
    else:
        new = QuantizedLinear(weight, getattr(module, "bias", None))
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def _scale(embedding: nn.Embedding) -> torch.Tensor | None:
    """What an embedding multiplies its rows with; None for a plain one."""
    if type(embedding) is nn.Embedding:
        return None
    scale = getattr(embedding, "embed_scale", None)
    if not isinstance(scale, torch.Tensor) or scale.numel() != 1:
        raise ModelError(f"{type(embedding).__name__} is an embedding of its own kind, which blocks do not replace")
    return scale.detach().float()


def _shape(module: nn.Module) -> tuple[int, int]:
    rows, columns = module.weight.shape  # type: ignore[misc]
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def _set(module: nn.Module, kind: str, stored: StoredWeight) -> torch.Tensor:
    value = stored.value
    assert isinstance(value, torch.Tensor)
    old = getattr(module, kind, None)
    if isinstance(old, torch.Tensor) and old.shape != value.shape:
        raise ModelError(f"{stored.name} is {tuple(value.shape)}; allowed: {tuple(old.shape)}")
    if not isinstance(old, torch.Tensor) and not isinstance(module, QuantizedLinear):
        raise ModelError(f"{stored.name} is a weight that {type(module).__name__} has not")
    value = value.to(old.dtype if isinstance(old, torch.Tensor) else torch.float32)
    if kind in module._parameters:
        module._parameters[kind] = nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[kind] = value
    return value


def _tie(model: PreTrainedModel) -> None:
    """A head without weights of its own shares the embedding's."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_meta or not model.config.tie_word_embeddings:
        return
    if isinstance(embedding, QuantizedEmbedding):
        model.set_output_embeddings(QuantizedLinear(embedding.packed))
    else:
        head.weight = embedding.weight


def _scale_rotary(model: PreTrainedModel, stored: StoredWeight) -> StoredKind:
    """Divide the plain rotary frequencies, as GGUF files of Llama 3.1 and later ask."""
    rotary = [m for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    divisors = stored.value
    if not isinstance(divisors, torch.Tensor) or not rotary or any(m.inv_freq.shape != divisors.shape for m in rotary):
        raise ModelError(f"{type(model).__name__} has no rotary frequencies that rope_freqs could divide")
    for module in rotary:
        module.inv_freq = module.inv_freq / divisors.float()
    return _as_floats(stored, divisors.float())
