"""What was proved of a model once, kept in the user's cache folder, and when it may be trusted again.

A proof is of one model on one machine: its key holds the architecture and every setting, samples of all weights, the
classes of all modules, the kernels, the libraries' releases, the threads and the processor. It is kept for models read
by name whose code is that of torch and transformers alone; what a caller made, and custom code, is proved each time.

Kept with it is a digest of some logits. One forward, at a row count drawn anew in each process, must give them bit for
bit: then the kernels compute what they computed when they were probed. If they do not, the model is proved again.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from paceline._version import __version__
from paceline.cache import cache_file, cache_key, read_json, write_json
from paceline.model.inspect import Anatomy
from paceline.model.numerics import instruction_set
from paceline.model.pool import LayerShape
from paceline.model.states import read_shapes
from paceline.native import layout
from paceline.native.library import library

_KNOWN_CODE = ("torch", "transformers", "paceline")
_SAMPLES = 16  # values of each weight
_BYTES = 1024  # of each that is in blocks: most hold codes of 4 bits
_SETTINGS = ("ATEN_", "DNNL_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "PACELINE_NATIVE", "TORCH_")


@dataclass(frozen=True)
class Proof:
    """The verdict on a model: what it is, on which numeric path it is exact, at which row counts; and a digest."""

    parts: Anatomy
    path: str
    row_counts: tuple[int, ...]
    digest: str


def proof_file(model: PreTrainedModel) -> Path | None:
    """Where the proof of a model that has just been read is kept; None if it cannot be known by what it is."""
    modules = list(model.named_modules())
    if any(_is_changed(module) for _, module in modules):
        return None
    return cache_file("proofs", _identity(model, [(name, _called(type(module))) for name, module in modules]))


def read_proof(file: Path | None) -> Proof | None:
    """The proof kept in a file; None if there is none, or not one whole as it was written."""
    says = read_json(file) if file is not None else None
    try:
        what = says["proof"]  # type: ignore[index]  # whatever it is, it is refused below
        if says["seal"] != cache_key(what):  # type: ignore[index]
            return None
        parts = {**what["parts"], "layers": [LayerShape(**layer) for layer in what["parts"]["layers"]]}
        parts["states"] = read_shapes(parts["states"])
        return Proof(Anatomy(**parts), what["path"], tuple(what["row_counts"]), what["digest"])
    except (TypeError, KeyError, AttributeError):
        return None


def write_proof(file: Path | None, proof: Proof) -> None:
    """Keep a proof, where it may be kept."""
    if file is not None:
        what = asdict(proof)
        write_json(file, {"proof": what, "seal": cache_key(what)})


def digest_of(logits: NDArray[Any]) -> str:
    """What tells logits from others by any bit of them."""
    return hashlib.sha256(logits.tobytes()).hexdigest()


def settings_of(model: PreTrainedModel) -> str:
    """Every setting of a model's configuration but where it was read."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    return repr(sorted(config.items(), key=lambda item: item[0]))


def _is_changed(module: nn.Module) -> bool:
    """True if a module is not what its class says, or its class is not of the libraries."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    home = type(module).__module__.split(".")[0]
    return home not in _KNOWN_CODE or any(hooks) or "forward" in vars(module)


def _called(kind: type) -> list[str]:
    """A class by name, and where the code of its forward comes from: libraries are patched by others."""
    code = getattr(inspect.unwrap(getattr(kind, "forward", kind)), "__code__", None)
    made_of = ("", b"") if code is None else (code.co_filename, code.co_code)
    return [kind.__module__, kind.__qualname__, made_of[0], hashlib.sha256(made_of[1]).hexdigest()]


def _identity(model: PreTrainedModel, modules: Sequence[tuple[str, list[str]]]) -> dict[str, Any]:
    found = library()
    return {
        "architecture": modules,
        "config": settings_of(model),
        "weights": _sampled(model),
        "dtype": str(model.dtype),
        "device": [str(model.device), instruction_set(model.device), _processor()],
        "kernels": [found.name, found.num_threads, _compiled()] if found is not None else [],
        "threads": torch.get_num_threads(),
        "releases": [__version__, torch.__version__, transformers.__version__],
        "settings": sorted(item for item in os.environ.items() if item[0].startswith(_SETTINGS)),
        "backends": [torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled()],
    }


def _sampled(model: PreTrainedModel) -> str:
    """A digest of names, shapes and some values of all weights."""
    found = hashlib.sha256()
    for name, tensor in _tensors(model):
        flat = tensor.detach().flatten() if tensor.is_contiguous() else tensor.detach()[:1].flatten()
        values = flat[_places(flat)].to("cpu", torch.float64)
        found.update(repr((name, tuple(tensor.shape), str(tensor.dtype), values.tolist())).encode())
    return found.hexdigest()


def _places(flat: torch.Tensor) -> torch.Tensor | slice:
    """Where samples are taken: of blocks not at equal distances, which might all meet codes and never a scale."""
    if flat.dtype == torch.uint8:
        return (torch.arange(_BYTES) * 2_654_435_761 + 17) % max(1, flat.numel())
    step = max(1, flat.numel() // _SAMPLES)
    return slice(0, step * (_SAMPLES + 1), step)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line for line in lines if line.startswith("model name")), platform.processor())
    except OSError:
        return platform.processor()


def _compiled() -> list[str]:
    """Digests of the compiled kernels."""
    files = sorted(Path(layout.__file__).parent.glob("_kernels*"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
