"""Folders of quantised models as Hugging Face has them, read from safetensors without the packages that wrote them."""

from __future__ import annotations

import os
from pathlib import Path

from paceline.formats.checkpoint import Checkpoint
from paceline.formats.checkpoints.folder import Folder
from paceline.formats.checkpoints.found import Format
from paceline.formats.checkpoints.qweight import find_auto_round, find_awq, find_gptq

# By `quant_method`; a new format is one file and its line here.
FORMATS: dict[str, Format] = {
    "gptq": find_gptq,
    "awq": find_awq,
    "auto-round": find_auto_round,
}


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """A quantised model in a local folder. Nothing but its configuration and the files' headers is read.

    Raises:
        ModelError: the folder holds none, or one of an unknown method.
    """
    return Folder(Path(folder), FORMATS)
