"""Which tensors of a file make which parameters of the transformers model: decided, and checked, before any is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from paceline.errors import ModelError, first_line
from paceline.formats.gguf.header import TensorInfo
from paceline.formats.gguf.names import (
    DOWN_EXPERTS,
    GATE_EXPERTS,
    NAMINGS,
    PHI3_FACTOR_TENSORS,
    ROPE_FACTOR_TENSOR,
    ROPE_FACTORS,
    UP_EXPERTS,
    Naming,
    layer_of,
    part_of,
)
from paceline.formats.gguf.reader import Reader

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Planned:
    """A parameter, and the tensors that it is made of: one, or a layer's gates and ups of all experts."""

    name: str
    part: str  # what the file calls it, without its layer
    tensors: tuple[TensorInfo, ...]

    @property
    def rows(self) -> Shape:
        """Its shape with rows of inputs: (out, in) or (E, out, in)."""
        first = self.tensors[0].shape
        return first if len(self.tensors) == 1 else (first[0], 2 * first[1], *first[2:])

    @property
    def stored_as(self) -> str:
        """Names of its types in the file."""
        return " and ".join(dict.fromkeys(tensor.kind.name for tensor in self.tensors))


def plan(reader: Reader, architecture: str, config: PreTrainedConfig) -> list[Planned]:
    """All parameters, each once; `rope_freqs` last where there is one.

    Raises:
        ModelError: a tensor is missing, not known, or of another shape than the configuration says.
    """
    naming = NAMINGS[architecture]
    wanted = parameter_shapes(config)
    planned = _parameters(reader, naming, config.num_hidden_layers)
    for entry in planned:
        shape = wanted.pop(entry.name, None)
        _check_shape(reader, entry, _turned(entry, naming), shape)
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    if wanted:
        raise ModelError(f"{reader.metadata.name} has no tensor for {next(iter(wanted))}; allowed: a file that has")
    return [*planned, *_rope_factors(reader, config)]


def parameter_shapes(config: PreTrainedConfig) -> dict[str, Shape]:
    """Shapes of all parameters by name, from a model without memory.

    Raises:
        ModelError: transformers makes no model of this.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise ModelError(f"transformers makes no model of what the metadata says: {first_line(error)}") from error
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}


def _parameters(reader: Reader, naming: Naming, num_layers: int) -> list[Planned]:
    found: dict[str, list[TensorInfo]] = {}
    for tensor in reader:
        layer = layer_of(tensor.name)
        is_extra = layer is not None and layer >= num_layers  # predicts further tokens
        if not is_extra and tensor.name not in (ROPE_FACTOR_TENSOR, *PHI3_FACTOR_TENSORS):
            found.setdefault(_parameter(naming, tensor.name), []).append(tensor)
    return [_planned(name, tensors) for name, tensors in found.items()]


def _parameter(naming: Naming, tensor: str) -> str:
    name = naming.parameter(tensor)
    return name.removesuffix(".weight") if part_of(tensor) in (GATE_EXPERTS, UP_EXPERTS, DOWN_EXPERTS) else name


def _planned(name: str, tensors: Iterable[TensorInfo]) -> Planned:
    ordered = sorted(tensors, key=lambda tensor: part_of(tensor.name) == UP_EXPERTS)  # gate before up
    parts = [part_of(tensor.name) for tensor in ordered]
    if len(parts) > 1 and (parts != [GATE_EXPERTS, UP_EXPERTS] or ordered[0].shape != ordered[1].shape):
        raise ModelError(f"the tensors {[t.name for t in ordered]} are all {name}; allowed: gate and up of one shape")
    if parts[0] in (GATE_EXPERTS, UP_EXPERTS) and len(parts) == 1:
        raise ModelError(f"the tensor {ordered[0].name!r} stands alone; allowed: gate and up of a layer's experts")
    return Planned(name, parts[0], tuple(ordered))


def _turned(entry: Planned, naming: Naming) -> Shape:
    """The shape that transformers has for what a file has as rows of inputs."""
    is_turned = entry.part in naming.transposed and len(entry.rows) == 2
    return entry.rows[::-1] if is_turned else entry.rows


def _check_shape(reader: Reader, entry: Planned, found: Shape, wanted: Shape | None) -> None:
    words = f"{reader.metadata.name}: the tensor {entry.tensors[0].name!r}"
    if wanted is None:
        raise ModelError(f"{words} is no parameter of this model; allowed: those of its configuration")
    if found != wanted:
        raise ModelError(f"{words} makes a {list(found)} of {entry.name}; allowed: {list(wanted)}")
    if len(found) == 1 and entry.tensors[0].kind.dtype is None:
        raise ModelError(f"{words} is a vector of {entry.tensors[0].kind.name}; allowed: F32, F16, BF16")


def _rope_factors(reader: Reader, config: PreTrainedConfig) -> list[Planned]:
    if ROPE_FACTOR_TENSOR not in reader:
        return []
    tensor = reader.tensor(ROPE_FACTOR_TENSOR)
    wanted = (config.head_dim // 2,)
    if tensor.shape != wanted or tensor.kind.dtype is None:
        raise ModelError(
            f"{reader.metadata.name}: {tensor.name!r} is {list(tensor.shape)} of {tensor.kind.name}; "
            f"allowed: {list(wanted)} of floats"
        )
    return [Planned(ROPE_FACTORS, ROPE_FACTORS, (tensor,))]
