"""From a name, a folder or a model to a checked `HFTarget` and the verdict on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.adapters import find_adapter
from paceline.architectures import is_composite
from paceline.bundled import bundled_path
from paceline.errors import ConfigError, ModelError, PacelineError, first_line
from paceline.formats.at_load import FloatCheckpoint, FloatFolder, FloatModel, Floats, QuantizedAtLoad
from paceline.formats.checkpoint import Checkpoint, is_checkpoint
from paceline.formats.contents import StoredKind
from paceline.formats.mixes import MIXES
from paceline.formats.opening import find_checkpoint
from paceline.model import inspect
from paceline.model.building import Builder, build
from paceline.model.decoder import Decoder
from paceline.model.forward import ROW_COUNTS
from paceline.model.hf import SCRATCH, HFTarget
from paceline.model.numerics import apply, free_memory, num_weights, shared_copy
from paceline.model.pictures.towers import has_towers
from paceline.model.prefix import PAGE_SIZE
from paceline.model.pretrained import read_model
from paceline.model.proof import Proof, proof_file, read_proof, write_proof
from paceline.model.proving import PROBE_PAGES, candidates, page_pool, prove, trust
from paceline.model.quantized import cache_dtype
from paceline.model.seq2seq.encoder import note_on, reading_of

Progress = Callable[[float], None]  # told the fraction that is done

_TEXT_ALONE = "of pictures, sound and text it is given text alone"
_PICTURES = "its first picture is compared with what its own code makes of one; of sound and films it is given none"
_POOL_SHARE = 0.25  # of the memory that is free
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DTYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ModelInfo:
    """The verdict of a load: what the model is, and on which numeric path its bits are exact."""

    name: str
    architecture: str
    num_parameters: int
    vocab_size: int
    max_length: int  # tokens of prompt and output together
    numerics: dict[str, Any]
    weight_bytes: int
    pool_bytes: int
    pool_tokens: int
    load_seconds: float
    note: str = ""
    contents: tuple[StoredKind, ...] = ()  # of a quantised model: how weights are stored, and what became of them

    @property
    def verdict(self) -> str:
        """One sentence: exact how, on which path."""
        sentence = (
            f"exact: identical bits proven at {len(self.numerics['row_counts'])} row counts up to "
            f"{self.numerics['row_counts'][-1]} on {self.numerics['path']} ({self.numerics['dtype']}, "
            f"{self.numerics['instruction_set']}, {self.numerics['threads']} threads)"
        )
        return f"{sentence}; {self.note}" if self.note else sentence


def load_target(
    source: str | os.PathLike[str] | PreTrainedModel | Checkpoint,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    cache_tokens: int | None = None,
    trust_remote_code: bool = False,
    on_progress: Progress | None = None,
) -> tuple[HFTarget, ModelInfo]:
    """A target ready to decode, and what load found out about it.

    `dtype` "int8" or "int4" quantises a model of floats, of which `on_progress` is told the fraction that is done.

    Raises:
        ModelError: the model cannot be found, read or decoded exactly.
        ConfigError: a dtype or device that does not exist here.
    """
    started = time.perf_counter()
    wanted = parse_dtype(dtype)
    chosen = _found(source, wanted, on_progress)
    factory = _factory(chosen, "auto" if wanted in MIXES else wanted, parse_device(device), trust_remote_code)
    model = factory()
    weights = num_weights(model)
    is_known = not isinstance(source, PreTrainedModel) and not trust_remote_code
    try:
        decoder, proof = _proven(model, factory, proof_file(model) if is_known else None, cache_tokens)
        decoder.prepare()
    except PacelineError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"{type(model).__name__} does not run over rows of a page pool: {what}") from error
    parts = proof.parts
    target = HFTarget(
        decoder, parts.vocab_size, parts.max_length, proof.path, reading_of(decoder.model, parts.max_source_length)
    )
    memory = target.memory()
    info = ModelInfo(
        name=_name_of(source),
        architecture=type(decoder.model).__name__,
        num_parameters=weights,
        vocab_size=parts.vocab_size,
        max_length=parts.max_length,
        numerics=target.numerics(),
        weight_bytes=memory["weight_bytes"],
        pool_bytes=memory["pool_bytes"],
        pool_tokens=(decoder.pool.num_pages - 1) * PAGE_SIZE,
        load_seconds=time.perf_counter() - started,
        note="; ".join(filter(None, (_note(decoder.model, parts), str(find_adapter(source) or "")))),
        contents=tuple(factory.contents) if isinstance(factory, Builder) else (),
    )
    return target, info


def _note(model: PreTrainedModel, parts: inspect.Anatomy) -> str:
    """What a user should know of a model that is exact."""
    other = (_PICTURES if has_towers(model) else _TEXT_ALONE) if is_composite(model.config) else ""
    return "; ".join(filter(None, (parts.note, note_on(model), other)))


def load_draft(source: str | PreTrainedModel, device: str) -> HFTarget:
    """A model to draft with: the same pieces as a target, but nothing is proven, since nothing depends on it."""
    model = _factory(_found(source, "auto", None), "auto", parse_device(device), False)()
    if model.config.is_encoder_decoder:
        raise ModelError(f"{type(model).__name__} is an encoder-decoder, which has no source to draft from")
    parts = inspect.anatomy(model)
    path = candidates(model)[0]
    apply(model, path)
    pool = page_pool(model, parts, _num_pages(model, parts, None))
    decoder = Decoder(model, pool, ROW_COUNTS, parts.max_length)
    decoder.prepare()
    return HFTarget(decoder, parts.vocab_size, parts.max_length, path.name)


def read_reference(source: str, dtype: str, device: torch.device) -> PreTrainedModel:
    """What our logits are held against: the model as transformers runs it in float32.

    Of a quantised one, over modules that multiply the values of its blocks by PyTorch's operations.
    """
    wanted = parse_dtype(dtype)
    found = _found(source, wanted if wanted in MIXES else "auto", None)
    if not is_checkpoint(found):
        return read_model(source, torch.float32, device)
    return _factory(found, "auto" if found.float_dtype is None else torch.float32, device, False)()


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | str:
    """A torch dtype, "auto" for the checkpoint's, or a way to quantise."""
    if isinstance(dtype, torch.dtype) or dtype == "auto" or dtype in MIXES:
        return dtype
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: auto, {', '.join((*_DTYPES, *MIXES))}")
    return _DTYPES[dtype]


def parse_device(device: str | torch.device) -> torch.device:
    """A torch device; "auto" is the GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device is {device!r}; allowed: auto, cpu, cuda, cuda:N") from error
    if parsed.type not in ("cpu", "cuda") or (parsed.type == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device is {device!r}, which is not available; allowed here: cpu")
    return parsed


def _found(source: Any, dtype: torch.dtype | str, on_progress: Progress | None) -> Any:
    """The checkpoint that a name stands for, or that a model is to become by `dtype`; else what was given."""
    if not isinstance(source, PreTrainedModel) and not is_checkpoint(source):
        source = find_checkpoint(source) or source
    if dtype not in MIXES:
        return source
    if is_checkpoint(source) and source.float_dtype is None:
        raise ConfigError(f"dtype is {dtype!r}; allowed for {source.name_or_path}, which is quantised: auto")
    return QuantizedAtLoad(_floats(source), str(dtype), on_progress)


def _floats(source: Any) -> Floats:
    """The weights of a model, from its files where they are here: they need not all be in memory then."""
    if isinstance(source, PreTrainedModel):
        return FloatModel(source)
    if is_checkpoint(source):
        return FloatCheckpoint(source)
    folder = Path(bundled_path(str(source)) or source)
    if find_adapter(source) is not None:
        return FloatModel(read_model(source, torch.float32, torch.device("cpu")))  # rounded once, into blocks
    if folder.is_dir():
        return FloatFolder(folder)
    return FloatModel(read_model(source, "auto", torch.device("cpu")))


def _name_of(source: Any) -> str:
    return source if isinstance(source, str) else str(getattr(source, "name_or_path", source))


def _factory(source: Any, dtype: torch.dtype | str, device: torch.device, trust: bool) -> Callable[[], PreTrainedModel]:
    """A function that makes a fresh model of our own each time, sharing the weights of a caller's model."""
    if is_checkpoint(source):
        if source.float_dtype is not None:
            chosen = source.float_dtype if dtype == "auto" else dtype
            return lambda: build(source).to(device, chosen)
        if dtype not in ("auto", torch.float32) or device.type != "cpu":
            raise ConfigError(f"dtype is {dtype!r} on {device}; allowed for quantised weights: auto or float32 on cpu")
        return Builder(source)
    if isinstance(source, PreTrainedModel):
        if dtype not in ("auto", source.dtype):
            raise ConfigError(f"the model given is {source.dtype}; convert it before, or leave dtype at auto")
        return lambda: shared_copy(source).eval()
    return lambda: read_model(source, dtype, device, trust_remote_code=trust, attn_implementation="eager")


def _proven(
    model: PreTrainedModel, factory: Callable[[], PreTrainedModel], file: Path | None, cache_tokens: int | None
) -> tuple[Decoder, Proof]:
    """A decoder by the proof kept in a file, or by one made now and kept there."""
    pages = partial(_num_pages, cache_tokens=cache_tokens)
    kept = read_proof(file)
    if kept is not None:
        trusted = trust(model, kept, pages)
        if trusted is not None:
            return trusted, kept
        model = factory()
    decoder, proof = prove(model, factory, pages)
    write_proof(file, proof)
    return decoder, proof


def _num_pages(model: PreTrainedModel, parts: inspect.Anatomy, cache_tokens: int | None) -> int:
    """Pages of the pool: what was asked for, or a share of free memory, at most 16 full contexts."""
    floats = sum(s.num_kv_heads * (s.key_dim + s.value_dim) for s in parts.layers)
    per_token = max(floats, 1) * cache_dtype(model).itemsize  # a model may have no attention at all
    free = free_memory(model.device)
    if cache_tokens is None:
        room = int(_POOL_SHARE * free) // per_token
        cache_tokens = min(16 * (parts.max_length + SCRATCH), room)
    elif cache_tokens * per_token > free:
        raise ConfigError(
            f"cache_tokens is {cache_tokens}, which needs {cache_tokens * per_token / 1e9:.1f} GB at {per_token} bytes "
            f"a token; allowed here: {free // per_token} ({free / 1e9:.1f} GB are free)"
        )
    return max(-(-cache_tokens // PAGE_SIZE) + 1, PROBE_PAGES)
