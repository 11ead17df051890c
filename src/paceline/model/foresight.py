"""What a model would be, by its configuration alone: no weight is read, and none is made.

The model is made without memory, and its layers asked what they store, as load asks them. A small one whose layers look
at values is made with random weights. What they compute is not seen: that their logits are right and their bits
stable is proved by load alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paceline.adapters import find_adapter
from paceline.architectures import auto_class
from paceline.bundled import bundled_path
from paceline.errors import ModelError, first_line
from paceline.formats.at_load import bytes_at_load
from paceline.formats.checkpoints import FORMATS
from paceline.formats.mixes import MIXES
from paceline.formats.opening import find_checkpoint
from paceline.model import inspect
from paceline.model.building import NEEDS_KERNELS
from paceline.model.experts import is_experts
from paceline.model.proving import candidates

_CHOSEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_top_k",
    "moe_topk",
    "top_k_experts",
    "experts_per_token",
)

_SMALL = 500_000_000  # weights, drawn in some seconds


@dataclass(frozen=True)
class Foresight:
    """What to expect of a load."""

    name: str
    architecture: str
    num_parameters: int
    dtype: str  # of the weights in memory
    weight_bytes: int  # 0 where only the files say: of quantised ones that are not here
    read_bytes: int  # of the weights, by a step of one row; 0 where it cannot be told
    path: str  # the numeric path that load tries first; empty if refused
    parts: inspect.Anatomy | None  # None where refused, and where layers cannot be asked without weights
    cache_bytes: int  # a position
    state_bytes: int  # a sequence
    refusal: str  # why load would refuse it; empty if nothing says so
    unseen: str  # why its layers cannot be asked; empty if they could be
    note: str

    @property
    def verdict(self) -> str:
        """One sentence: whether it would run, and how."""
        if self.refusal:
            return f"refused: {self.refusal}"
        if self.unseen:
            return f"not foreseen: its layers cannot be asked without weights ({self.unseen}); load it to know"
        return (
            f"to be expected exact on {self.path} ({self.dtype}): all of its layers can be answered; "
            "load compares their logits with the model's own, and proves the row counts"
        )


def foresee(source: str | os.PathLike[str], dtype: torch.dtype | str, device: torch.device) -> Foresight:
    """What to expect of `source`, loaded so; `dtype` "auto" is the checkpoint's.

    Raises:
        ModelError: its configuration cannot be found or read, or transformers has no such model.
    """
    adapter = find_adapter(source)
    config, stored = _config(adapter.base if adapter is not None else source)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        wanted = dtype if isinstance(dtype, torch.dtype) else (getattr(config, "dtype", None) or torch.float32)
        model = _without_memory(config, torch.float32 if stored else wanted)
        return _foreseen(model, str(source), (stored, dtype), device, str(adapter or ""))
    finally:
        transformers_logging.set_verbosity(verbosity)


def _config(source: str | os.PathLike[str]) -> tuple[PreTrainedConfig, str]:
    """A model's configuration, and by which method its weights are quantised; empty if they are floats."""
    if str(source).lower().endswith(".gguf"):
        found = find_checkpoint(source) if Path(source).is_file() else None
        if found is None:
            raise ModelError(f"{str(source)!r} is no file here; a GGUF file holds its configuration: download it first")
        return found.config, "" if found.float_dtype else "gguf"
    folder = bundled_path(str(source)) or source
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise ModelError(f"cannot read the configuration of {str(source)!r}: {first_line(error)}") from error
    stored = ""
    for part in (config, config.get_text_config(decoder=True)):
        settings = vars(part).pop("quantization_config", None)
        stored = stored or (str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else "")
    return config, stored


def _without_memory(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    kind = auto_class(config)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind.from_config(config, dtype=dtype, attn_implementation="eager")
    except Exception as error:
        raise ModelError(f"transformers cannot make a model of this configuration: {first_line(error)}") from error
    return model.eval()


def _foreseen(
    model: PreTrainedModel, name: str, kinds: tuple[str, torch.dtype | str], device: torch.device, note: str
) -> Foresight:
    stored, dtype = kinds
    is_quantized = bool(stored) or dtype in MIXES
    parts, refusal, unseen = _answers(model, device)
    if stored and stored not in (*FORMATS, "gguf"):
        refusal = f"its weights are quantised by {stored!r}; allowed: {', '.join(sorted(FORMATS))}"
    found = [path for path in candidates(model, device) if path.library is not None or not is_quantized]
    if not found and not refusal:
        refusal = NEEDS_KERNELS
    weights = _weight_bytes(model, name, kinds)
    size = 2 if is_quantized else model.dtype.itemsize  # of what is cached: bfloat16 of quantised models
    words = str(model.dtype).removeprefix("torch.")
    return Foresight(
        name=name,
        architecture=type(model).__name__,
        num_parameters=_num(model.parameters()),
        dtype=stored or (str(dtype) if dtype in MIXES else words),
        weight_bytes=weights,
        read_bytes=int(weights * _share_read(model)),
        path="" if refusal else found[0].name,
        parts=parts,
        cache_bytes=size * sum(s.num_kv_heads * (s.key_dim + s.value_dim) for s in (parts.layers if parts else ())),
        state_bytes=sum(parts.states.num_bytes) if parts else 0,
        refusal=refusal,
        unseen=unseen,
        note="; ".join(filter(None, (parts.note if parts else "", note))),
    )


def _answers(model: PreTrainedModel, device: torch.device) -> tuple[inspect.Anatomy | None, str, str]:
    """As `_asked`, with weights if it cannot be done without."""
    found = _asked(model, device)
    if not found[-1] or _num(model.parameters()) > _SMALL:
        return found
    whole = auto_class(model.config).from_config(model.config, dtype=model.dtype, attn_implementation="eager")
    return _asked(whole.eval(), device)


def _asked(model: PreTrainedModel, device: torch.device) -> tuple[inspect.Anatomy | None, str, str]:
    """What the layers answer, why the model is refused, or why they cannot be asked."""
    for module in model.modules():
        if is_experts(module):
            module.forward = _say_nothing  # which experts a row goes to depends on values
    try:
        return inspect.anatomy(model, device), "", ""
    except ModelError as error:
        cause = error.__cause__  # what a layer raised, perhaps for want of values
        if not isinstance(cause, Exception):
            return None, str(error), ""
        return None, "", first_line(cause) or type(cause).__name__


def _say_nothing(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden


def _weight_bytes(model: PreTrainedModel, name: str, kinds: tuple[str, torch.dtype | str]) -> int:
    stored, dtype = kinds
    if stored:
        is_here = stored in (*FORMATS, "gguf") and (Path(name).is_file() or any(Path(name).glob("*.safetensors")))
        found = find_checkpoint(name) if is_here else None
        return found.num_bytes if found is not None else 0
    if dtype in MIXES:
        return bytes_at_load(model, str(dtype))
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _share_read(model: PreTrainedModel) -> float:
    """The share of all weights that one row reads: of an embedding a row alone, of experts those that are chosen.

    Encoders and towers for pictures are read once a prompt. 0 if it cannot be told how many experts are chosen.
    """
    config = model.config.get_text_config(decoder=True)
    head, embedding, decoder = model.get_output_embeddings(), model.get_input_embeddings(), model.get_decoder()
    read = {*(decoder or model).parameters(), *head.parameters()}
    if getattr(head, "weight", None) is not embedding.weight:
        read -= {embedding.weight}
    count = inspect.num_experts(config).rpartition("=")[2]
    experts = {p for m in model.modules() if is_experts(m) for p in m.parameters()} if count else set()
    chosen = next((n for name in _CHOSEN if isinstance(n := getattr(config, name, None), int)), 0)
    if count and not (experts and 0 < chosen <= int(count)):
        return 0.0
    num_read = _num(read - experts) + (_num(read & experts) * chosen / int(count) if count else 0.0)
    return float(num_read / _num(model.parameters()))


def _num(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
