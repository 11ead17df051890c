"""A model as transformers reads it, if every weight comes from the checkpoint and every weight of it has a place."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paceline.adapters import Adapter, find_adapter
from paceline.architectures import auto_class
from paceline.bundled import bundled_path
from paceline.errors import ModelError, first_line
from paceline.formats.opening import find_checkpoint
from paceline.model.merging import merge

_SHOWN = 4  # names of weights in a sentence
# Masks and frequencies that earlier releases of transformers saved: they are computed now.
_COMPUTED = re.compile(r"(inv_freq|masked_bias|causal_mask|position_ids|attn\.bias|attention\.bias)$")


def read_model(
    source: str | os.PathLike[str], dtype: torch.dtype | str, device: torch.device, **options: Any
) -> PreTrainedModel:
    """A bundled model, a folder or a hub name, as transformers loads it with these options; an adapter on its base.

    Raises:
        ModelError: there is no such model, it cannot be read, or its weights are not those of its architecture.
    """
    adapter = find_adapter(source)
    if adapter is not None:
        return _read_adapted(adapter, dtype, options).to(device).eval()
    folder = bundled_path(str(source)) or source
    looks_local = isinstance(source, os.PathLike) or str(source).startswith((".", "/", "~"))
    if looks_local and not (Path(folder) / "config.json").is_file():
        raise ModelError(f"no model in the folder {str(source)!r}: it has no config.json")
    _refuse_pickles(folder)
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        model, found = _read(folder, dtype, options)
    except ModelError:
        raise
    except Exception as error:
        lost = _not_converted(error)
        if lost:
            raise ModelError(f"weights in {str(source)!r} do not make up what they belong to: {_some(lost)}") from error
        raise ModelError(f"cannot load the model {str(source)!r}: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    check_weights(model, found)
    return model.to(device).eval()


def _read_adapted(adapter: Adapter, dtype: torch.dtype | str, options: dict[str, Any]) -> PreTrainedModel:
    """The base with the adapter in it. It is read as stored, or in float32, so that a sum is rounded but once."""
    _refuse_quantized(adapter)
    stored = torch.float32 if dtype == torch.float32 else "auto"
    model = read_model(adapter.base, stored, torch.device("cpu"), **options)
    wanted = dtype if isinstance(dtype, torch.dtype) else model.dtype
    merge(model, adapter, wanted)
    return model.to(wanted)


def _refuse_quantized(adapter: Adapter) -> None:
    if find_checkpoint(adapter.base) is not None:
        raise ModelError(
            f"the base {adapter.base!r} of the adapter {str(adapter.folder)!r} is quantised, and sums need floats; "
            f"name the base that it was made of: BASE+{adapter.folder}"
        )


def _read(
    folder: str | os.PathLike[str], dtype: torch.dtype | str, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=options.get("trust_remote_code", False))
    how = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    return auto_class(config).from_pretrained(folder, **how, **options)  # type: ignore[no-any-return]


def _not_converted(error: Exception) -> list[str]:
    """Weights that transformers could not stack, of experts as a rule: a part is missing, or named otherwise.

    It says so in its log alone, and names them in the frame that raised.
    """
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [getattr(frame.get("loading_info"), "conversion_errors", None) for frame in frames]
    return sorted({name for names in found for name in names or ()})


def check_weights(model: PreTrainedModel, found: dict[str, Any]) -> None:
    """Refuse what `found`, of `output_loading_info`, names: transformers draws at random, or drops, what does not fit.

    Tied and renamed weights are not in it. What belongs to a part that the class does not have, such as heads of
    other tasks or layers that predict further ahead, may be left out; a piece of a layer may not.
    """
    name = type(model).__name__
    if found["missing_keys"]:
        raise ModelError(f"weights that {name} needs are not in the checkpoint: {_some(found['missing_keys'])}")
    if found["mismatched_keys"]:
        shown = [f"{key} is {list(got)}, needed {list(needed)}" for key, got, needed in found["mismatched_keys"]]
        raise ModelError(f"weights in the checkpoint have other shapes than {name}'s: {_some(shown)}")
    lost = [key for key in found["unexpected_keys"] if _is_of_a_layer(model, key)]
    if lost:
        raise ModelError(f"the checkpoint has weights in layers of {name} that these have no place for: {_some(lost)}")
    if found["error_msgs"]:
        raise ModelError(f"weights of {name} cannot be read: {_some(found['error_msgs'])}")


def _is_of_a_layer(model: PreTrainedModel, key: str) -> bool:
    """True if a weight lies in a list of layers, or in a module that has weights of its own."""
    if _COMPUTED.search(key):
        return False
    module: nn.Module = model
    is_in_list = False
    for part in key.split(".")[:-1]:
        is_in_list |= isinstance(module, nn.ModuleList)
        inner = module._modules.get(part)
        if inner is None:
            return is_in_list
        module = inner
    return is_in_list or next(module.parameters(recurse=False), None) is not None


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse_pickles(folder: str | os.PathLike[str]) -> None:
    """Reading a pickle may run code of whoever made it."""
    path = Path(folder)
    if path.is_dir() and any(path.glob("pytorch_model*.bin")) and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"the weights in {str(folder)!r} are pickles (pytorch_model.bin), and reading one may run code that it "
            "brings; convert it where you trust its author: load it by transformers with use_safetensors=False and "
            "save_pretrained it to another folder"
        )
