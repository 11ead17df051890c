"""A folder with a quantised model: its configuration, and its parameters by the names of the transformers model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from paceline.errors import ModelError, first_line
from paceline.formats.checkpoint import StoredWeight
from paceline.formats.checkpoints.found import Format, Found, Settings
from paceline.formats.checkpoints.names import Names
from paceline.formats.checkpoints.tensors import Tensors, read_json

# Where a configuration of older folders lies, and the method that it is of.
_OLDER = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
# Tensors that no weight depends on: scales of activations and of keys and values, which are not quantised here so.
_NO_WEIGHTS = re.compile(
    r"\.(input_scale|input_zero_point|input_global_scale|activation_scale|output_scale|[qkv]_scale)$"
)


class Folder:
    """A `Checkpoint`. What the configuration calls the method decides which tensors are looked for."""

    def __init__(self, path: Path, formats: dict[str, Format]) -> None:
        self.name_or_path = str(path)
        self._settings, method = quantisation(path)
        if method not in formats:
            raise ModelError(f"{path}: quant_method is {method!r}; allowed: {', '.join(sorted(formats))}")
        self.config = _config(path)
        self._tensors = Tensors(path)
        self._format = formats[method]

    @property
    def num_bytes(self) -> int:
        """Bytes of the files of weights."""
        return self._tensors.num_bytes

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """None: it lies in the folder, for transformers to read."""
        return None

    def weights(self) -> Iterator[StoredWeight]:
        """All parameters, each once.

        Raises:
            ModelError: tensors are damaged, missing, unknown, or laid out in a way that is not known.
        """
        names = Names(self.config)
        found = list(self._format(self._tensors, self._settings))
        taken = {part for each in found for part in each.parts}
        yield from names.checked(self._read(found, [name for name in self._tensors if name not in taken]))

    def _read(self, found: list[Found], rest: list[str]) -> Iterator[StoredWeight]:
        for each in found:
            yield each.read()
        for name in rest:
            if not _NO_WEIGHTS.search(name):
                yield _float(name, self._tensors[name])


def quantisation(path: Path) -> tuple[Settings, str]:
    """What a folder says of its quantisation, and the method.

    Raises:
        ModelError: it says nothing.
    """
    config = read_json(path / "config.json")
    text = config.get("text_config")
    older = {name: method for name, method in _OLDER.items() if (path / name).is_file()}
    places = [config, text if isinstance(text, dict) else {}]
    for settings in (place.get(key) for place in places for key in ("quantization_config", "compression_config")):
        if isinstance(settings, dict):
            return settings, str(settings.get("quant_method", next(iter(older.values()), "")))
    for name, method in older.items():
        return read_json(path / name), method
    raise ModelError(f"{path}: config.json has no quantization_config, and there is no {' or '.join(_OLDER)}")


def _config(path: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(str(path), local_files_only=True)
    except Exception as error:
        raise ModelError(f"{path}: config.json cannot be read: {first_line(error)}") from error
    for part in (config, config.get_text_config(decoder=True)):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config


def _float(name: str, tensor: torch.Tensor) -> StoredWeight:
    """A tensor that is not quantised."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise ModelError(f"{name} is {_dtype(tensor)} {list(tensor.shape)}, and no known format's; allowed: floats")
    return StoredWeight(name, _dtype(tensor).upper(), tensor)


def _dtype(tensor: torch.Tensor) -> Any:
    return {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}.get(
        name := str(tensor.dtype).removeprefix("torch."), name
    )
