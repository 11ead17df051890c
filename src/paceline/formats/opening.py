"""From what a caller names to the quantised weights it stands for: a GGUF file, or a quantised folder."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from paceline.errors import ModelError, first_line
from paceline.formats.checkpoint import Checkpoint

_SETTINGS = ("config.json", "quantize_config.json", "quant_config.json")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]


def find_checkpoint(source: str | os.PathLike[str]) -> Checkpoint | None:
    """The quantised model that a name stands for; None if it is one that transformers reads, or none at all.

    `model.gguf` and `folder` are local; `org/name:model.gguf` and `org/name` are on the hub.

    Raises:
        ModelError: it cannot be read, or is of a kind that is not known.
    """
    if str(source).lower().endswith(".gguf"):
        from paceline.formats.gguf import open_gguf

        return open_gguf(_gguf_file(str(source)))
    folder = _quantized_folder(source)
    if folder is None:
        return None
    from paceline.formats.checkpoints import open_checkpoint

    return open_checkpoint(folder)


def _gguf_file(source: str) -> Path:
    name, colon, file = source.rpartition(":")
    if Path(source).is_file() or not colon:
        return Path(source)
    if Path(name).is_dir():
        return Path(name) / file
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file))
    except Exception as error:
        raise ModelError(f"cannot load {file!r} of the hub's {name!r}: {first_line(error)}") from error


def _quantized_folder(source: str | os.PathLike[str]) -> Path | None:
    folder = Path(source)
    if folder.is_dir():
        return folder if _says_quantized(folder) else None
    if str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        return None
    return _from_hub(str(source))


@functools.cache  # a load asks more than once, and each answer is a request
def _from_hub(name: str) -> Path | None:
    """The folder of a hub's model, if its configuration says that it is quantised; what is missing is downloaded."""
    from huggingface_hub import snapshot_download
    from transformers.utils import cached_file

    try:
        config = cached_file(name, _SETTINGS[0], _raise_exceptions_for_missing_entries=False)
    except Exception:  # transformers says it better
        return None
    if not config or not _says_quantized(Path(config).parent):
        return None
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:
        raise ModelError(f"cannot load the hub's {name!r}: {first_line(error)}") from error


def _says_quantized(folder: Path) -> bool:
    if any((folder / name).is_file() for name in _SETTINGS[1:]):
        return True
    config = _json(folder / _SETTINGS[0])
    return bool(config.get("quantization_config") or config.get("compression_config"))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
