"""Folders of quantised models as Hugging Face has them, read from safetensors without the packages that wrote them."""

from __future__ import annotations

import os
from pathlib import Path

from paceline.formats.checkpoints import bitsandbytes, compressed_tensors, fp8, mxfp4, qweight, torchao
from paceline.formats.checkpoints.folder import Folder
from paceline.formats.checkpoints.found import Format

# By `quant_method`; a new format is one file and its line here.
FORMATS: dict[str, Format] = {
    "auto-round": qweight.find_auto_round,
    "awq": qweight.find_awq,
    "bitsandbytes": bitsandbytes.find,
    "compressed-tensors": compressed_tensors.find,
    "fbgemm_fp8": fp8.find,
    "fp8": fp8.find,
    "gptq": qweight.find_gptq,
    "mxfp4": mxfp4.find,
    "mxfp8": fp8.find,
    "torchao": torchao.find,
}


def open_checkpoint(folder: str | os.PathLike[str]) -> Folder:
    """A quantised model in a local folder. Nothing but its configuration and the headers of its files is read.

    Raises:
        ModelError: the folder holds none, or one of an unknown method.
    """
    return Folder(Path(folder), FORMATS)
