"""A folder with a head in it: its configuration, read within bounds, and its tensors by name. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from paceline.errors import ModelError, first_line
from paceline.formats.checkpoints.tensors import Tensors, read_json

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FLOATS = ("F16", "BF16", "F32", "F64")
_MOST_BYTES = 2**20  # of a configuration
_MOST_TAPS = 64
# The largest sizes that any head is read with, by name; tensors must then be of the very sizes.
_BOUNDS = {
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "num_hidden_layers": 64,
    "head_dim": 2**12,
    "vocab_size": 2**22,
    "max_position_embeddings": 2**26,
}


class HeadFiles:
    """What lies in a folder.

    Raises:
        ModelError: there is no configuration, no safetensors file, or one that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "config.json"
        if not file.is_file():
            raise ModelError(f"no head in the folder {str(folder)!r}: it has no config.json")
        if file.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{file} has {file.stat().st_size} bytes; allowed: {_MOST_BYTES}")
        self.config = read_json(file)

    @cached_property
    def tensors(self) -> Tensors:
        """Its tensors, by the names that the files have."""
        if not any(self.folder.glob("*.safetensors*")):
            pickles = sorted(path.name for pattern in _PICKLES for path in self.folder.glob(pattern))
            if pickles:
                what = f"the weights in {str(self.folder)!r} are pickles ({pickles[0]})"
                raise ModelError(f"{what}, and reading one may run code that it brings; allowed: safetensors")
        return Tensors(self.folder)

    @cached_property
    def names(self) -> dict[str, str]:
        """The tensors' names without the prefix `model.` that some writers set -> those in the files."""
        return {name.removeprefix("model."): name for name in self.tensors}

    @property
    def architectures(self) -> list[str]:
        """What its writer calls it."""
        found = self.config.get("architectures")
        return [str(one) for one in found] if isinstance(found, list) else []

    @property
    def speculators_type(self) -> str:
        """The kind by speculators' names; empty if it is none of theirs."""
        return str(self.config.get("speculators_model_type") or "")

    def part(self, *keys: str) -> dict[str, Any]:
        """The first of these objects of the configuration; empty without any."""
        found = [self.config[key] for key in keys if isinstance(self.config.get(key), dict)]
        return found[0] if found else {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, by its name without prefix."""
        return self.tensors.entry(self.names.get(name, name)).shape

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of floats, by its name without prefix."""
        return self.float_of(self.names.get(name, name))

    def float_of(self, name: str) -> torch.Tensor:
        """A tensor of floats, by its name in the files."""
        entry = self.tensors.entry(name)
        if entry.dtype not in _FLOATS:
            raise ModelError(f"{name} is {entry.dtype} {list(entry.shape)}; allowed: {', '.join(_FLOATS)}")
        return self.tensors[name]


def integer(where: dict[str, Any], key: str, ge: int, le: int, default: int | None = None) -> int:
    """A number of a configuration, within bounds.

    Raises:
        ModelError: it is missing and has no default, or is none that is allowed.
    """
    value = where.get(key)
    value = default if value is None else value  # some writers write null for what they do not say
    if isinstance(value, bool) or not isinstance(value, int) or not ge <= value <= le:
        raise ModelError(f"{key} is {value!r}; allowed: {ge} to {le}")
    return value


def flag(where: dict[str, Any], key: str, default: bool) -> bool:
    """A flag of a configuration; ModelError if it is something else."""
    value = where.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ModelError(f"{key} is {value!r}; allowed: true or false")
    return value


def tap_ids(value: Any, key: str, shift: int) -> tuple[int, ...]:
    """Taps from the numbers of layers that a writer names; `shift` is what its numbers lack.

    Raises:
        ModelError: they are no list of numbers, or no taps.
    """
    is_list = isinstance(value, list) and 0 < len(value) <= _MOST_TAPS
    if not is_list or not all(type(one) is int and 0 <= one + shift < 2**10 for one in value):
        raise ModelError(f"{key} is {value!r}; allowed: 1 to {_MOST_TAPS} numbers of layers, from {-shift} on")
    return tuple(one + shift for one in value)


def layers_of(values: dict[str, Any], kinds: dict[str, str], vocab_size: int | None = None) -> PreTrainedConfig:
    """The configuration of a head's own layers, of one of these kinds: the writer's word for it, and transformers'.

    Raises:
        ModelError: a size is out of bounds, or they are of another kind.
    """
    kind = str(values.get("model_type", next(iter(kinds))))
    if kind not in kinds:
        raise ModelError(f"the head's layers are of {kind!r}; allowed: {', '.join(kinds)}")
    for name, most in _BOUNDS.items():
        if values.get(name) is not None:
            integer(values, name, 1, most)
    given = {key: value for key, value in values.items() if key not in ("model_type", "architectures", "auto_map")}
    given |= {} if vocab_size is None else {"vocab_size": vocab_size}
    try:
        return AutoConfig.for_model(kinds[kind], **given)
    except Exception as error:
        raise ModelError(f"the configuration of the head's layers cannot be read: {first_line(error)}") from error


def filled(files: HeadFiles, make: Callable[[], Any], weights: dict[str, torch.Tensor]) -> Any:
    """The module that `make` makes, its parameters the weights of these names.

    No memory is taken before the shapes are known to be those of the files.

    Raises:
        ModelError: a weight is missing, one too many, or of another shape.
    """
    module = _made(files, make)
    wanted = module.state_dict()
    missing, foreign = sorted(wanted.keys() - weights), sorted(weights.keys() - wanted)
    if missing:
        raise ModelError(f"{files.folder}: the head lacks {missing[0]} {list(wanted[missing[0]].shape)}")
    if foreign:
        raise ModelError(f"{files.folder}: {foreign[0]} is no part of such a head; it has {', '.join(sorted(wanted))}")
    for name, weight in weights.items():
        if weight.shape != wanted[name].shape:
            shapes = f"{list(weight.shape)}; allowed by the configuration: {list(wanted[name].shape)}"
            raise ModelError(f"{files.folder}: {name} is {shapes}")
    module.load_state_dict(weights, assign=True)
    if hasattr(module, "rotary_emb"):  # it has no weights, but numbers that are not stored
        module.rotary_emb = type(module.rotary_emb)(module.config.layers)
    return module.eval().requires_grad_(False)


def _made(files: HeadFiles, make: Callable[[], Any]) -> Any:
    """The module without memory. What transformers makes of sizes and names that it does not know is told by it."""
    try:
        with torch.device("meta"):
            return make()
    except ModelError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"{files.folder}: no head can be built of its configuration ({what})") from error
