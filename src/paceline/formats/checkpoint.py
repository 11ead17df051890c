"""What a file or folder of quantised weights gives: a configuration, and weights by transformers' names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from paceline.formats.blocks import BlockRows


@dataclass(frozen=True)
class StoredWeight:
    """One parameter of a model, as it was found."""

    name: str  # of the parameter in the transformers model: "model.layers.0.mlp.up_proj.weight"
    stored_as: str  # in the file's own words: "Q4_K", "GPTQ int4", "BF16"
    value: BlockRows | torch.Tensor  # blocks for a matrix of a linear or embedding; else floats, as stored
    is_exact: bool = True  # False: the file's values have no kernel and were converted to the nearest that has


class Checkpoint(Protocol):
    """A model to be decoded from quantised weights. Nothing is read before it is asked for."""

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration that transformers makes the model of; it names no quantisation."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the files."""

    @property
    def float_dtype(self) -> torch.dtype | None:
        """The dtype of one that holds floats alone; None where weights are in blocks."""

    @property
    def name_or_path(self) -> str:
        """What the caller named."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that the file holds, with its chat template; None if it is to be found elsewhere."""

    def weights(self) -> Iterator[StoredWeight]:
        """All parameters, each once; one tensor's worth of memory at a time beyond what is mapped.

        Raises:
            ModelError: the file is damaged, or holds what is not known.
        """


def is_checkpoint(source: Any) -> TypeGuard[Checkpoint]:
    """True for what has all that a `Checkpoint` has."""
    return all(hasattr(source, name) for name in ("weights", "tokenizer", "num_bytes", "float_dtype"))
