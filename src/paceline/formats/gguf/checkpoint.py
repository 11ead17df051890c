"""A GGUF file as a checkpoint: configuration, tokenizer and weights of one model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from paceline.formats.checkpoint import StoredWeight
from paceline.formats.gguf.config import read_config
from paceline.formats.gguf.plan import plan
from paceline.formats.gguf.reader import Reader, open_reader
from paceline.formats.gguf.values import Values


class GGUFCheckpoint:
    """A model in a GGUF file, or in several shards of which one is named.

    Raises:
        ModelError: there is no such file, or its header is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.name_or_path = Path(path), str(path)
        self.reader: Reader = open_reader(self.path)

    @cached_property
    def architecture(self) -> str:
        """What the file calls the model's architecture."""
        return self.reader.metadata.text("general.architecture")

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The configuration that transformers makes the model of; it names no quantisation."""
        return read_config(self.reader)

    @property
    def num_bytes(self) -> int:
        """Bytes of the files."""
        return self.reader.num_bytes

    @property
    def float_dtype(self) -> torch.dtype | None:
        """bfloat16 of a file that holds nothing wider, float32 of other floats; None where there are blocks."""
        dtypes = {tensor.kind.dtype for tensor in self.reader if len(tensor.shape) > 1}
        if None in dtypes:
            return None
        return torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that the file holds, with its chat template; None if it holds none."""
        from paceline.formats.gguf.tokenizer import read_tokenizer

        size = self.reader.tensor("token_embd.weight").shape[0]
        return read_tokenizer(self.reader.metadata, self.architecture, size)

    def weights(self) -> Iterator[StoredWeight]:
        """All parameters, each once, by the names that transformers uses; a tied head is not among them.

        Last comes `rope_freqs` (D / 2,) where a file has it: divisors of the rotary embedding's plain frequencies.

        Raises:
            ModelError: a tensor is missing, not known, or of another shape than the configuration says.
        """
        config = self.config
        values = Values(self.reader, self.architecture, config)
        for planned in plan(self.reader, self.architecture, config):
            value, is_exact = values.read(planned)
            yield StoredWeight(planned.name, planned.stored_as, value, is_exact)
            for tensor in planned.tensors:
                self.reader.forget(tensor.name)


def open_gguf(path: str | os.PathLike[str]) -> GGUFCheckpoint:
    """A GGUF file, or all shards of which this is one; nothing but the header is read.

    Raises:
        ModelError: there is no such file, or its header is damaged.
    """
    return GGUFCheckpoint(path)
