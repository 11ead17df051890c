"""Weights as llama.cpp itself quantises them: files that Paceline and llama.cpp both read."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.formats.gguf.writer import write_gguf

MIXES = {"Q8_0": 7, "Q4_0": 2, "Q4_K_M": 15}  # llama.cpp's numbers of its mixes
OWN = "model"  # the name of the file of the weights as they are


def write_files(model: PreTrainedModel, mixes: tuple[str, ...], folder: Path, api: Any) -> None:
    """`model.gguf` of a model's own weights, and beside it one file of each mix; `api` is llama-cpp-python's module."""
    source = file_of(folder, OWN)
    write_gguf(model, source)
    for mix in mixes:
        quantise(source, file_of(folder, mix), mix, api)


def quantise(source: Path, path: Path, mix: str, api: Any) -> None:
    """Let llama.cpp write the file of a mix."""
    settings = api.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = MIXES[mix], torch.get_num_threads()
    if api.llama_model_quantize(bytes(source), bytes(path), ctypes.byref(settings)) != 0:
        raise RuntimeError(f"llama.cpp cannot quantise to {mix}")


def file_of(folder: Path, mix: str) -> Path:
    """Where `write_files` puts a mix."""
    return folder / f"{mix}.gguf"
