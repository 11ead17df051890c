"""A transformers model of quantised weights: its linears and embeddings hold blocks, all else is float32.

The modules here are the reference: they multiply, by PyTorch's operations, the values of blocks with inputs rounded as
the kernels round them. `numerics.apply` puts native ones in their places; what load compares is those two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paceline.errors import ModelError
from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.checkpoint import Checkpoint, StoredWeight
from paceline.formats.rounding import quantize
from paceline.model.experts import BlockExperts, is_experts
from paceline.native.library import VARIABLE, Library, library
from paceline.native.ops import run
from paceline.native.quantized import QuantizedWeight

_PIECE = 2**22  # values that the reference has as floats at a time
_GROUP = 32


class QuantizedLinear(nn.Module):
    """A linear over blocks: (..., K) to (..., N) float32."""

    bias: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.packed = weight
        self.register_buffer("bias", bias)
        self.register_buffer("codes", weight.data, persistent=False)
        self.in_features, self.out_features = weight.k, weight.num_columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product with the blocks' values, a piece of them at a time."""
        inputs = _rounded(x if self.packed.order is None else x.index_select(-1, self.packed.order))
        count = max(1, _PIECE // self.packed.k)
        starts = range(0, self.out_features, count)
        out = torch.cat([inputs @ self.packed.values(i, i + count).t() for i in starts], -1)
        return out if self.bias is None else out + self.bias


class QuantizedEmbedding(nn.Module):
    """An embedding over blocks: (...) int64 to (..., K) float32, times `scale` where the model has one (Gemma)."""

    scale: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.packed = weight
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("codes", weight.data, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The blocks' values."""
        flat = tokens.reshape(-1).contiguous()
        out = torch.empty(len(flat), self.packed.k)
        run(self.packed.library, [self.packed.rows(out, flat)])
        rows = out.view(*tokens.shape, -1)
        return rows if self.scale is None else rows * self.scale


def is_quantized(model: nn.Module) -> bool:
    """True for a model of `build`."""
    return any(isinstance(module, QuantizedLinear | QuantizedEmbedding) for module in model.modules())


def build(checkpoint: Checkpoint, on_weight: Callable[[StoredWeight], None] | None = None) -> PreTrainedModel:
    """The model of a checkpoint, one weight after another; each that is read is told.

    Raises:
        ModelError: without native kernels, or where weights and model do not fit together.
    """
    found = library()
    if checkpoint.float_dtype is None and found is None:
        raise ModelError(f"quantised weights need the native kernels: install with a C compiler, without {VARIABLE}=0")
    with _without_memory():
        config, dtype = deepcopy(checkpoint.config), checkpoint.float_dtype or torch.float32
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    for stored in checkpoint.weights():
        _place(model, found if checkpoint.float_dtype is None else None, stored)
        if on_weight is not None:
            on_weight(stored)
    _tie(model)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ModelError(f"weights that {type(model).__name__} needs are not there: {', '.join(missing[:5])}")
    return model.eval()


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


def _place(model: PreTrainedModel, found: Library | None, stored: StoredWeight) -> None:
    if stored.name == "rope_freqs":
        return _scale_rotary(model, stored.value)
    path, _, kind = stored.name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise ModelError(f"{stored.name} is a weight that {type(model).__name__} has not") from error
    if found is None:
        return _set(module, kind, stored)
    if is_experts(module) and isinstance(stored.value, BlockRows):
        return _set_experts(module, kind, found, stored.value)
    blocks = _as_blocks(module, stored.value) if kind == "weight" else None
    if blocks is not None:
        _replace(model, path, module, QuantizedWeight(found, blocks))
    elif isinstance(stored.value, torch.Tensor):
        _set(module, kind, stored)
    else:
        raise ModelError(f"{stored.name} is in blocks, which {type(module).__name__} does not multiply by")


def _set_experts(module: nn.Module, kind: str, found: Library, blocks: BlockRows) -> None:
    """Blocks over the rows of all experts, one expert after another."""
    shape = module._parameters[kind].shape  # type: ignore[union-attr]  # a layer's experts have both
    if (blocks.num_rows, blocks.k) != (shape[0] * shape[1], shape[2]):
        raise ModelError(f"{kind} is {(blocks.num_rows, blocks.k)}; allowed: {(shape[0] * shape[1], shape[2])}")
    parts = [replace(blocks, data=part) for part in torch.split(blocks.data, shape[1])]
    del module._parameters[kind]
    setattr(module, kind, BlockExperts([QuantizedWeight(found, part) for part in parts]))


def _as_blocks(module: nn.Module, value: BlockRows | torch.Tensor) -> BlockRows | None:
    """A matrix of a linear, in blocks: those that a file keeps as floats are read at every step all the same."""
    if not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
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


def _set(module: nn.Module, kind: str, stored: StoredWeight) -> None:
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


def _tie(model: PreTrainedModel) -> None:
    """A head without weights of its own shares the embedding's."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_meta or not model.config.tie_word_embeddings:
        return
    if isinstance(embedding, QuantizedEmbedding):
        model.set_output_embeddings(QuantizedLinear(embedding.packed))
    else:
        head.weight = embedding.weight


def _scale_rotary(model: PreTrainedModel, divisors: BlockRows | torch.Tensor) -> None:
    """Divide the plain rotary frequencies, as GGUF files of Llama 3.1 and later ask."""
    rotary = [m for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    if not isinstance(divisors, torch.Tensor) or not rotary or any(m.inv_freq.shape != divisors.shape for m in rotary):
        raise ModelError(f"{type(model).__name__} has no rotary frequencies that rope_freqs could divide")
    for module in rotary:
        module.inv_freq = module.inv_freq / divisors.float()


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """`x` with each group of 32 features rounded to int8 times a scale, as the kernels round it."""
    pad = -x.shape[-1] % _GROUP
    padded = nn.functional.pad(x.float(), (0, pad))
    groups = padded.view(*padded.shape[:-1], -1, _GROUP)
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most < 1e-30, torch.zeros_like(most), 127.0 / most)
    rounded: torch.Tensor = torch.round(groups * inverse) * (most / 127.0)
    return rounded.flatten(-2)[..., : x.shape[-1]]
