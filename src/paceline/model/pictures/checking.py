"""Whether a model's logits behind a picture, as we show it, are those that its own code computes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from paceline.errors import ModelError, PacelineError, RequestError, first_line
from paceline.model.agreement import distance, tolerance_of
from paceline.model.decoder import Decoder
from paceline.model.inspect import num_experts
from paceline.model.interface import ATTENTION_NAME
from paceline.model.pictures.prompt import SeenPrompt
from paceline.model.pictures.towers import Towers
from paceline.model.prefix import PAGE_SIZE
from paceline.model.quantized import quickly
from paceline.model.seq2seq.attaching import attend_by
from paceline.text.pictures import Pictured
from paceline.text.processor import PicturedIds, Processor

_LAST = 4  # rows whose logits are compared: those of words behind a picture
_WORDS = "1 2 3 4 5 6 7 8"
_WIDTH, _HEIGHT = 96, 64


def check_pictures(decoder: Decoder, towers: Towers, processor: Processor) -> None:
    """Find out whether pieces of a picture see each other; refuse a model that does more with one than is known.

    It costs two forwards over a sample, or three.

    Raises:
        ModelError: it does, or its code does not run.
        RequestError: there is no room in the cache for the sample.
    """
    model, name = decoder.model, type(decoder.model).__name__
    sample = processor.read(_sample(processor))
    try:
        own = _own_logits(model, sample)
        for has_blocks in towers.ways:  # Gemma 4 has them in some sizes, and the code for them in all
            towers.has_blocks = has_blocks
            far = _distance(decoder, towers.see(sample), sample.ids, own)
            if far <= tolerance_of(model):
                return
    except PacelineError:
        raise
    except Exception as error:
        raise ModelError(f"{name} does not run over a prompt with a picture: {first_line(error)}") from error
    allowed = f"relative; allowed {tolerance_of(model):.0e}"
    raise ModelError(
        f"logits behind a picture differ from {name}'s own by {far:.2g} ({allowed}): "
        "it does more with one than take its features in place of tokens, which would have to be written"
    )


def _distance(decoder: Decoder, prompt: SeenPrompt, ids: list[int], own: torch.Tensor) -> float:
    model = decoder.model
    if prompt.blocks and not decoder.is_exact_by_construction:
        name = type(model).__name__
        raise ModelError(f"pieces of a picture see each other in {name}, which the native kernels alone compute")
    ours = torch.from_numpy(_our_logits(decoder, prompt, ids))
    return distance(ours, own, bool(num_experts(model.config.get_text_config())))


def _sample(processor: Processor) -> Pictured:
    from PIL import Image

    ramp = np.mgrid[0:_HEIGHT, 0:_WIDTH].sum(0)
    colours = np.stack([ramp, ramp * 3, 255 - ramp], axis=-1) % 256
    return Pictured(f"1 {processor.mark} {_WORDS}", (Image.fromarray(colours.astype(np.uint8)),))


def _own_logits(model: PreTrainedModel, sample: PicturedIds) -> torch.Tensor:
    """(4, V) float32, of the last words, by the model's own attention."""
    known = inspect.signature(model.forward).parameters
    given = {name: _moved(model, value) for name, value in sample.beside.items() if name in known}
    how = {"logits_to_keep": _LAST} if "logits_to_keep" in known else {}
    attend_by(model, "eager")
    try:
        with torch.inference_mode(), quickly():
            return model(**given, **how, use_cache=False).logits[0, -_LAST:].float().cpu()  # type: ignore[no-any-return]
    finally:
        attend_by(model, ATTENTION_NAME)


def _moved(model: PreTrainedModel, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)


def _our_logits(decoder: Decoder, prompt: SeenPrompt, ids: list[int]) -> NDArray[np.float32]:
    """(4, V) float32, of the last words."""
    sequence = decoder.pool.reserve(len(ids))
    if sequence is None:
        raise RequestError("the cache has no room to try a picture out; allowed: pictures once others have ended")
    sequence.pictures = prompt
    logits = np.zeros((0, 0), np.float32)
    try:
        while sequence.length < len(ids):
            start, end = sequence.length, min(sequence.length + PAGE_SIZE, len(ids))
            fresh = decoder.prefill_logits(sequence, ids[start : prompt.end_of_chunk(start, end)])
            logits = np.concatenate([logits.reshape(-1, fresh.shape[1]), fresh])[-_LAST:]
    finally:
        decoder.pool.release(sequence)
    return logits
