"""Tiny models of quantised weights: a random model's matrices in blocks of several kinds, by turns."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from exactness.decoding import PlainRuns
from exactness.models import build
from native.blocks import inputs_of
from paceline.formats.blocks import BlockRows, BlockType
from paceline.formats.checkpoint import StoredWeight
from paceline.formats.dequantize import dequantize
from paceline.formats.rounding import quantize
from paceline.model.loading import load_target

# Every architecture that files of blocks come in, with the kinds of blocks that its matrices get.
MODELS: dict[str, tuple[BlockType, ...]] = {
    "llama": (BlockType.Q8_0,),
    "llama-odd": (BlockType.Q4_K, BlockType.Q6_K, BlockType.Q4_Z),
    "qwen2": (BlockType.Q4_0, BlockType.Q4_Z),
    "qwen3": (BlockType.Q4_K, BlockType.Q5_K),
    "gemma2": (BlockType.Q6_K, BlockType.Q8_0),
    "phi3": (BlockType.Q4_K, BlockType.Q8_0),
    "gpt2": (BlockType.Q5_K, BlockType.Q4_1, BlockType.Q8_F),
}


@dataclass(frozen=True)
class Rounded:
    """A checkpoint: `model` with its matrices in blocks."""

    model: PreTrainedModel
    kinds: Sequence[BlockType]
    name_or_path: str = "rounded"
    num_bytes: int = 0
    float_dtype: torch.dtype | None = None

    @property
    def config(self) -> PreTrainedConfig:
        return copy.deepcopy(self.model.config)

    def tokenizer(self) -> None:
        return None

    def weights(self) -> Iterator[StoredWeight]:
        count = 0
        for name, value in self.model.named_parameters():
            module = self.model.get_submodule(name.rpartition(".")[0])
            if value.ndim == 2 and isinstance(module, nn.Linear | nn.Embedding | Conv1D):
                kind = self.kinds[count % len(self.kinds)]
                count += 1
                matrix = value.detach().t() if isinstance(module, Conv1D) else value.detach()
                yield StoredWeight(name, kind.name, in_blocks(matrix.contiguous(), kind))
            else:
                yield StoredWeight(name, "F32", value.detach())


def in_blocks(weight: torch.Tensor, kind: BlockType) -> BlockRows:
    """A weight (N, K) in blocks; kinds that nothing rounds to hold another's values, or the range of each group."""
    if kind == BlockType.Q8_F:
        q8 = quantize(weight, BlockType.Q8_0)
        blocks = q8.data.view(len(weight), -1, 34)
        scales = blocks[..., :2].contiguous().view(torch.float16).float() * 1.001  # not those of float16
        data = torch.cat([scales.view(torch.uint8), blocks[..., 2:]], -1)
        return BlockRows(kind, data.flatten(1), weight.shape[1])
    if kind not in (BlockType.Q4_1, BlockType.Q4_Z):
        return quantize(weight, kind)
    groups = nn.functional.pad(weight, (0, -weight.shape[1] % 32)).unflatten(1, (-1, 32)).numpy()
    least, most = (np.minimum(groups.min(-1, keepdims=True), 0), np.maximum(groups.max(-1, keepdims=True), 0))
    d = ((most - least) / 15).astype(np.float16)
    step = np.maximum(d.astype(np.float32), 1e-7)
    zero = np.rint(-least / step).clip(0, 15)
    if kind == BlockType.Q4_1:
        head = np.concatenate([d, (-zero * step).astype(np.float16)], -1).view(np.uint8)
    else:
        head = np.concatenate([d.view(np.uint8), zero.astype(np.uint8), np.zeros_like(zero, np.uint8)], -1)
    codes = np.rint(groups / step + zero).clip(0, 15).astype(np.uint8)
    data = np.concatenate([head, codes[..., :16] | codes[..., 16:] << 4], -1)
    return BlockRows(kind, torch.from_numpy(data.reshape(len(weight), -1)), weight.shape[1])


def with_values(checkpoint: Rounded) -> PreTrainedModel:
    """The float32 model that has the values of the blocks."""
    model = copy.deepcopy(checkpoint.model)
    with torch.no_grad():
        for stored in checkpoint.weights():
            if isinstance(stored.value, BlockRows):
                parameter, values = model.get_parameter(stored.name), dequantize(stored.value)
                is_turned = isinstance(model.get_submodule(stored.name.rpartition(".")[0]), Conv1D)
                parameter.copy_(values.t() if is_turned else values)
    return model


def rounded(x: torch.Tensor) -> torch.Tensor:
    """x (..., K) with each group of 32 as whole multiples of a 127th of its largest value."""
    inputs = inputs_of(x.reshape(-1, x.shape[-1]).numpy())
    values = (inputs["q"] * inputs["d"][..., None]).reshape(len(inputs), -1)[:, : x.shape[-1]]
    return torch.from_numpy(values).view(x.shape)


class QuantizedSubject:
    """A model of `MODELS`, loaded; the same for the tests as an `exactness.subjects.Subject`."""

    def __init__(self, architecture: str, *, cache_tokens: int = 4096, **changes: int) -> None:
        self.checkpoint = Rounded(build(architecture, **changes), MODELS[architecture])
        self.target, self.info = load_target(self.checkpoint, cache_tokens=cache_tokens)
        self.decoder = self.target.decoder
        self.pool = self.decoder.pool
        self.plain = PlainRuns(self.target)

    def own_logits(self, tokens: list[int], are_inputs_rounded: bool) -> np.ndarray:
        """(T, V) logits of transformers on the values of the blocks."""
        model = with_values(self.checkpoint)
        for module in model.modules() if are_inputs_rounded else ():
            if isinstance(module, nn.Linear | Conv1D):
                module.register_forward_pre_hook(lambda module, args: (rounded(args[0]),))
        with torch.inference_mode():
            return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
