"""A folder with a quantised model: its configuration, and its parameters by the names of the transformers model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from paceline.errors import ModelError, first_line
from paceline.formats.checkpoint import StoredWeight
from paceline.formats.checkpoints.experts import Reader, merged
from paceline.formats.checkpoints.found import Format, Found, Settings
from paceline.formats.checkpoints.names import Names
from paceline.formats.checkpoints.rows import becomes, pack
from paceline.formats.checkpoints.tensors import Entry, Tensors, read_json
from paceline.formats.contents import StoredKind, summed

# Where a configuration of older folders lies, and the method that it is of.
_OLDER = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
# Tensors that no weight depends on: scales of activations and of keys and values, which are not quantised here so.
_NO_WEIGHTS = re.compile(
    r"\.(input_scale|input_zero_point|input_global_scale|input_scale_ub|activation_scale|output_scale|[qkv]_scale)$"
)
_FLOATS = ("F16", "BF16", "F32", "F64")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


class Folder:
    """A `Checkpoint`. What the configuration calls the method decides which tensors are looked for.

    Raises:
        ModelError: there is no quantised model, or it is of a method that is not known.
    """

    float_dtype = None

    def __init__(self, path: Path, formats: dict[str, Format]) -> None:
        self._path = path
        self.name_or_path = str(path)
        settings, method = quantisation(path)
        if method not in formats:
            raise ModelError(f"{path}: quant_method is {method!r}; allowed: {', '.join(sorted(formats))}")
        self._tensors = Tensors(path)
        self._found = list(formats[method](self._tensors, settings))
        if not self._found:
            raise ModelError(f"{path}: quant_method is {method!r}, but no tensor is laid out so")
        taken = {part for found in self._found for part in found.parts}
        self._whole = [name for name in self._tensors if name not in taken and not _NO_WEIGHTS.search(name)]

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The configuration that transformers makes the model of; it names no quantisation."""
        config = _config(self._path, len(list(self._tensors)))
        names = Names(config)
        self._check_size(sum(torch.Size(shape).numel() for shape in names.shapes.values()))
        if any(self._is_untied(*pair) for pair in names.tied.items()):
            for part in (config, config.get_text_config(decoder=True)):
                part.tie_word_embeddings = False
        return config

    @property
    def num_bytes(self) -> int:
        """Bytes of the files of weights."""
        return self._tensors.num_bytes

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """None: it lies in the folder, for transformers to read."""
        return None

    def weights(self) -> Iterator[StoredWeight]:
        """All parameters, each once; experts of a layer in one, as a matrix over all of them.

        Raises:
            ModelError: tensors are damaged, missing, unknown, or laid out in a way that is not known.
        """
        names = Names(self.config)
        readers: dict[str, Reader] = {found.name: partial(_packed, found) for found in self._found}
        readers |= {name: partial(self._float, name) for name in self._whole}
        yield from names.checked(reader() for reader in merged(readers, names.shapes).values())

    def describe(self) -> list[StoredKind]:
        """What the folder holds, by kind; scales are looked at, codes are not.

        Raises:
            ModelError: as `weights`.
        """
        return summed(self._kinds())

    def _kinds(self) -> Iterator[StoredKind]:
        for found in self._found:
            source = found.source()
            kind, is_exact = becomes(found.name, source.matrix)
            num_bytes = sum(self._tensors.entry(part).num_bytes for part in found.parts)
            weights = torch.Size(source.matrix.shape).numel()
            yield StoredKind(source.stored_as, 1, weights, num_bytes, kind.name, is_exact)
        for name in self._whole:
            entry = self._float_entry(name)
            yield StoredKind(entry.dtype, 1, torch.Size(entry.shape).numel(), entry.num_bytes, entry.dtype, True)

    def _check_size(self, num_weights: int) -> None:
        """Before memory is taken for what a damaged configuration asks for: no format has less than a bit a weight."""
        if num_weights > 8 * self.num_bytes:
            raise ModelError(
                f"{self._path}: a model as config.json says has {num_weights} weights; "
                f"allowed: at most {8 * self.num_bytes}, the bits of its files"
            )

    def _is_untied(self, head: str, embedding: str) -> bool:
        """A head of its own, though the configuration ties it: quantised, or with other values."""
        if any(found.name == head for found in self._found):
            return True
        if head not in self._whole or embedding not in self._whole:
            return head in self._whole
        return not torch.equal(self._tensors[head], self._tensors[embedding])

    def _float(self, name: str) -> StoredWeight:
        """A tensor that is not quantised."""
        return StoredWeight(name, self._float_entry(name).dtype, self._tensors[name])

    def _float_entry(self, name: str) -> Entry:
        entry = self._tensors.entry(name)
        if entry.dtype not in _FLOATS:
            allowed = ", ".join(_FLOATS)
            raise ModelError(
                f"{name} is {entry.dtype} {list(entry.shape)}, and no part of a weight; allowed: {allowed}"
            )
        return entry


def _packed(found: Found) -> StoredWeight:
    source = found.source()
    rows, is_exact = pack(found.name, source.matrix)
    return StoredWeight(found.name, source.stored_as, rows, is_exact)


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


def _config(path: Path, most_layers: int) -> PreTrainedConfig:
    """The configuration, of no more layers than there are tensors: transformers makes lists that are as long."""
    stored = read_json(path / "config.json")
    text = stored.get("text_config")
    for part in (stored, text if isinstance(text, dict) else {}):
        for key in _LAYERS:
            count = part.get(key, 0)
            if isinstance(count, int | float) and count > most_layers:
                raise ModelError(
                    f"{path}: config.json says {key} is {count}; allowed: at most {most_layers}, its tensors"
                )
    try:
        config = AutoConfig.from_pretrained(str(path), local_files_only=True)
    except Exception as error:
        raise ModelError(f"{path}: config.json cannot be read: {first_line(error)}") from error
    for part in (config, config.get_text_config(decoder=True)):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    return config
