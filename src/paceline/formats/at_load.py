"""A model in floats, quantised while it is loaded, and kept for the next time.

What is kept are the blocks, as a safetensors file in the user's cache folder, named by what the floats are and the mix.
Samples tell files of weights apart, and whole blocks from damaged ones: to read all of them would take as long as
loading does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paceline.architectures import auto_class
from paceline.cache import cache_folder, cache_key
from paceline.errors import ModelError, first_line
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.checkpoint import Checkpoint, StoredWeight
from paceline.formats.checkpoints.names import Names
from paceline.formats.checkpoints.tensors import Tensors
from paceline.formats.kept import Kept, open_kept
from paceline.formats.mixes import block_types
from paceline.formats.rounding import quantize

_ROUNDING = 2  # counts up when the same floats get other blocks
_SAMPLES, _SAMPLE = 1024, 64  # places of each file, and bytes there
_LONGEST_HEADER = 10**8  # of safetensors

_PLAIN = ("FalconLinear",)  # whose own code is a linear's


class Floats(Protocol):
    """Weights in floats, by parameter name."""

    config: PreTrainedConfig
    name_or_path: str

    @property
    def num_bytes(self) -> int:
        """Bytes of all of them."""

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters of the model, each once."""

    def identity(self) -> str | None:
        """What tells them from others, wherever they lie; None where only all bytes would."""


class FloatFolder:
    """A folder of safetensors files, as transformers writes it.

    Raises:
        ModelError: it is damaged, or transformers has no such model.
    """

    def __init__(self, path: Path) -> None:
        self.name_or_path = str(path)
        self._path = path
        try:
            self.config: PreTrainedConfig = AutoConfig.from_pretrained(path)
        except Exception as error:
            raise ModelError(f"cannot read the configuration of {str(path)!r}: {first_line(error)}") from error
        self._tensors = Tensors(path)

    @property
    def num_bytes(self) -> int:
        """Bytes of the files of weights."""
        return self._tensors.num_bytes

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters.

        Raises:
            ModelError: one is missing, unknown, or of another shape.
        """
        found = (StoredWeight(name, "", self._tensors[name]) for name in self._tensors)
        for weight in Names(self.config).checked(found):
            assert isinstance(weight.value, torch.Tensor)
            yield weight.name, weight.value

    def identity(self) -> str | None:
        """Of each file its size, its header and samples of the rest."""
        files = sorted(self._path.glob("*.safetensors"))
        return cache_key({file.name: [file.stat().st_size, _sampled(file)] for file in files})


class FloatModel:
    """A transformers model in memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config: PreTrainedConfig = model.config
        self.name_or_path = str(model.config._name_or_path)
        self._model = model

    @property
    def num_bytes(self) -> int:
        """Bytes of the parameters."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters())

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters."""
        for name, parameter in self._model.named_parameters():
            yield name, parameter.detach()

    def identity(self) -> str | None:
        """None: whoever holds the model may have changed any weight."""
        return None


class FloatCheckpoint:
    """A checkpoint that holds floats alone, such as a GGUF file that nobody has quantised."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.name_or_path, self.num_bytes = (
            checkpoint.config,
            checkpoint.name_or_path,
            checkpoint.num_bytes,
        )
        self._checkpoint = checkpoint

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters."""
        for stored in self._checkpoint.weights():
            assert isinstance(stored.value, torch.Tensor)
            yield stored.name, stored.value

    def identity(self) -> str | None:
        """None: it is quantised each time."""
        return None


class QuantizedAtLoad:
    """A `Checkpoint` of weights in floats: matrices of linears and embeddings become the blocks of a mix.

    `on_progress` is told the fraction that is done, after each weight.
    """

    def __init__(self, floats: Floats, mix: str, on_progress: Callable[[float], None] | None = None) -> None:
        self.config, self.name_or_path = floats.config, floats.name_or_path
        self._floats, self._mix, self._on_progress = floats, mix, on_progress
        self._modules = _matrices(floats.config)
        self.types = block_types({name: shape for name, (shape, _) in self._modules.items()}, mix)

    @property
    def num_bytes(self) -> int:
        """Bytes of the floats."""
        return self._floats.num_bytes

    float_dtype = None

    def tokenizer(self) -> None:
        """None: it lies where the model does."""
        return None

    def weights(self) -> Iterator[StoredWeight]:
        """All parameters, each once.

        Raises:
            ModelError: the floats are damaged or not finite.
        """
        done, total = 0, self._floats.num_bytes
        with closing(self._kept()) as kept:
            for name, value in self._floats.weights():
                yield StoredWeight(name, _words(value), self._value(name, value, kept), name not in self.types)
                done += value.numel() * value.element_size()
                if self._on_progress is not None:
                    self._on_progress(min(1.0, done / max(1, total)))

    def _value(self, name: str, value: torch.Tensor, kept: Kept) -> BlockRows | torch.Tensor:
        block_type = self.types.get(name)
        if block_type is None:
            return value
        (_, k), is_transposed = self._modules[name]
        data = kept.read(name)
        if data is not None:
            return BlockRows(block_type, data, k)
        rows = quantize(value.t() if is_transposed else value, block_type)
        kept.write(name, rows.data)
        return rows

    def _kept(self) -> Kept:
        identity = self._floats.identity()
        shapes = {name: _rows(self._modules[name][0], kind) for name, kind in self.types.items()}
        if identity is None:
            return open_kept(None, shapes)
        what = {"floats": identity, "rounding": _ROUNDING, "types": {n: int(t) for n, t in self.types.items()}}
        return open_kept(cache_folder() / "quantized" / f"{cache_key(what)}.safetensors", shapes)


def _rows(shape: tuple[int, int], block_type: BlockType) -> tuple[int, int]:
    """Rows and bytes of a row of a weight (N, K)."""
    block = BLOCKS[block_type]
    return shape[0], -(-shape[1] // block.weights) * block.num_bytes


def bytes_at_load(model: PreTrainedModel, mix: str) -> int:
    """Bytes of a model's weights once they are quantised, by their shapes alone."""
    found = _matrices_of(model)
    types = block_types({name: shape for name, (shape, _) in found.items()}, mix)
    blocks = sum(math.prod(_rows(found[name][0], kind)) for name, kind in types.items())
    rest = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if name not in types)
    return int(blocks + rest)


def _matrices(config: PreTrainedConfig) -> dict[str, tuple[tuple[int, int], bool]]:
    """By parameter name the shape (N, K) of each matrix of a linear or embedding, and whether it is stored (K, N)."""
    if config.is_encoder_decoder:
        raise ModelError(f"{config.model_type} is an encoder-decoder, which int8 and int4 do not know; allowed: floats")
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
    return _matrices_of(model)


def _matrices_of(model: PreTrainedModel) -> dict[str, tuple[tuple[int, int], bool]]:
    found: dict[str, tuple[tuple[int, int], bool]] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D) and not does_more(module):
            rows, columns = module.weight.shape
            is_transposed = isinstance(module, Conv1D)
            found[names[id(module.weight)]] = ((columns, rows) if is_transposed else (rows, columns), is_transposed)
    return found


def does_more(module: nn.Module) -> bool:
    """True for a linear with code of its own, such as a router: another module would not do in its place."""
    kind = type(module)
    return isinstance(module, nn.Linear) and kind.forward is not nn.Linear.forward and kind.__name__ not in _PLAIN


def _words(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _sampled(file: Path) -> str:
    """A digest of a file's header and of samples of the rest."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        head = opened.read(8)
        found.update(head + opened.read(min(int.from_bytes(head, "little"), _LONGEST_HEADER)))
        first, last = opened.tell(), max(opened.tell(), file.stat().st_size - _SAMPLE)
        for i in range(_SAMPLES):
            opened.seek(first + (last - first) * i // (_SAMPLES - 1))
            found.update(opened.read(_SAMPLE))
    return found.hexdigest()
