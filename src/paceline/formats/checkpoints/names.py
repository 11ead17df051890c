"""The parameters of a configuration's model in transformers; whatever else a folder holds is dropped or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from transformers import PreTrainedConfig

from paceline.architectures import auto_class
from paceline.errors import ModelError, first_line
from paceline.formats.blocks import BlockRows
from paceline.formats.checkpoint import StoredWeight

# Buffers that older versions of transformers saved.
_BUFFERS = re.compile(r"(\.rotary_emb\.inv_freq|\.attn\.(masked_)?bias)$")


class Names:
    """Names and shapes of a model's parameters, made without memory for them.

    Raises:
        ModelError: transformers has no such model.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        try:
            with torch.device("meta"):
                model = auto_class(config).from_config(config)
        except Exception as error:
            raise ModelError(f"transformers makes no model of {config.model_type}: {first_line(error)}") from error
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        tied = getattr(model, "all_tied_weights_keys", None) or {}
        self.tied: dict[str, str] = {head: source for head, source in tied.items() if head not in self.shapes}
        self._ignored = [re.compile(p) for p in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
        self._model = type(model).__name__

    def checked(self, weights: Iterator[StoredWeight]) -> Iterator[StoredWeight]:
        """The parameters among the weights, all of them, each of its shape.

        Raises:
            ModelError: one is missing, is there twice, has another shape, or is not the model's.
        """
        missing = set(self.shapes)
        for weight in weights:
            if weight.name in missing:
                missing.remove(weight.name)
                self._check_shape(weight)
                yield weight
            elif not self._is_spare(weight):
                raise ModelError(f"{weight.name} is no parameter of {self._model}, or is there twice")
        if missing:
            raise ModelError(f"{len(missing)} parameters of {self._model} are missing, {min(missing)} among them")

    def _is_spare(self, weight: StoredWeight) -> bool:
        """It can go: a tied head, a buffer, a bias of zeros that some packers add."""
        name, value = weight.name, weight.value
        if name in self.tied or _BUFFERS.search(name) or any(p.search(name) for p in self._ignored):
            return True
        return name.endswith(".bias") and isinstance(value, torch.Tensor) and not bool(value.any())

    def _check_shape(self, weight: StoredWeight) -> None:
        """Blocks of experts are one matrix over all of them; some models keep weights transposed."""
        shape, value = self.shapes[weight.name], weight.value
        got: tuple[int, ...] = tuple(value.shape) if isinstance(value, torch.Tensor) else (value.num_rows, value.k)
        allowed = {shape}
        if isinstance(value, BlockRows):
            allowed = {(_product(shape[:-1]), shape[-1]), (_product(shape) // shape[-2], shape[-2])}
        if got not in allowed:
            raise ModelError(f"{weight.name} is {list(got)}; {self._model} has {list(shape)}")


def _product(numbers: tuple[int, ...]) -> int:
    return torch.Size(numbers).numel()
