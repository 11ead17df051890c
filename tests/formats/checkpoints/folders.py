"""Folders with tiny models of random weights, whose linears a format has packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from paceline.formats.checkpoint import StoredWeight
from paceline.formats.checkpoints import FORMATS, open_checkpoint
from paceline.formats.checkpoints.rows import pack
from paceline.formats.checkpoints.tensors import Tensors

from . import oracle

Packed = tuple[dict[str, torch.Tensor], np.ndarray]
LLAMA = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "tie_word_embeddings": False,
}
QWEN2 = LLAMA | {"model_type": "qwen2", "hidden_size": 160, "num_attention_heads": 5, "tie_word_embeddings": True}


def write_model(
    folder: Path, config: dict[str, Any], settings: dict[str, Any], pack: Callable[[str, int, int], Packed]
) -> dict[str, np.ndarray]:
    """A whole model, linears of its layers packed: returns what each parameter is, in float64."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    tensors: dict[str, torch.Tensor] = {}
    meant: dict[str, np.ndarray] = {}
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "proj.weight" in name:
            parts, meant[name] = pack(name, *parameter.shape)
            module = name.removesuffix(".weight")
            tensors |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
        else:
            tensors[name] = torch.randn(parameter.shape, dtype=torch.float16)
            meant[name] = tensors[name].double().numpy()
    write_folder(folder, config, settings, tensors)
    return meant


def write_folder(
    folder: Path, config: dict[str, Any], settings: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    save_file(tensors, folder / "model.safetensors")


def read_model(folder: Path) -> dict[str, StoredWeight]:
    weights = list(open_checkpoint(folder).weights())
    assert len({w.name for w in weights}) == len(weights)
    return {w.name: w for w in weights}


def read_linear(
    folder: Path,
    settings: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
) -> StoredWeight:
    """One linear, `m`, read by a format alone."""
    save_file({f"m.{name}": t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", metadata)
    (found,) = FORMATS[settings["quant_method"]](Tensors(folder), settings)
    assert found.name == "m.weight"
    assert {f"m.{name}" for name in tensors} <= set(found.parts)
    source = found.source()
    rows, is_exact = pack(found.name, source.matrix)
    return StoredWeight(found.name, source.stored_as, rows, is_exact)


def values(weight: StoredWeight) -> np.ndarray:
    """What was read, in float64."""
    if isinstance(weight.value, torch.Tensor):
        return weight.value.double().numpy()
    return oracle.values(weight.value)


def assert_same(weights: dict[str, StoredWeight], meant: dict[str, np.ndarray]) -> None:
    assert weights.keys() == meant.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(values(weight), meant[name], err_msg=name)
