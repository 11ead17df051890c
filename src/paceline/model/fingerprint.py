"""What tells a model from others by any bit of its weights, and by any setting.

Weights are read as they lie in memory, laid out anew or not: the layout is a function of the weights and of the numeric
path. Knows nothing of targets or requests.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import PreTrainedModel

from paceline.model.grouped import PackedLinears
from paceline.model.linears import NativeEmbedding, NativeLinear, OneDNNLinear
from paceline.model.proof import settings_of

_PIECE = 2**24  # elements that a thread hashes at a time


def model_digest(model: PreTrainedModel) -> str:
    """A digest of all weights and settings. Every byte is hashed; other threads run meanwhile."""
    found = hashlib.sha256(repr((type(model).__qualname__, settings_of(model))).encode())
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4), "paceline-digest") as threads:
        for digest in threads.map(_digest, _pieces(model)):
            found.update(digest)
    return found.hexdigest()


def _pieces(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """All weights, each memory once, in parts of one dimension with the name and shape of the whole."""
    seen: set[int] = set()
    for name, tensor in _weights(model):
        if tensor.is_mkldnn:
            whole = tensor.to_dense()
        elif tensor.data_ptr() in seen:
            continue
        else:
            seen.add(tensor.data_ptr())
            whole = tensor.detach()
        about = f"{name} {tuple(whole.shape)} {whole.dtype}"
        yield from ((about, part) for part in torch.split(whole.contiguous().view(-1), _PIECE))


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers that a checkpoint has, and what stands in for those that were laid out anew."""
    yield from model.state_dict().items()
    for name, module in model.named_modules():
        if isinstance(module, (NativeLinear, NativeEmbedding, PackedLinears, OneDNNLinear)):
            yield from ((f"{name}.{index}", tensor) for index, tensor in enumerate(module.weights()))


def _digest(piece: tuple[str, torch.Tensor]) -> bytes:
    about, values = piece
    found = hashlib.sha256(about.encode())
    found.update(values.cpu().view(torch.uint8).numpy().data)
    return found.digest()
