"""The verdict on pictures in a prompt: a tiny random model of a type, and a processor as plain as its towers allow."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

import paceline
from paceline.errors import first_line
from sweeping.shrink import shrunk

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from exactness.decoding import RandomTrees, decode
from models.families import of_config
from pictures.tiny import FAMILIES, Subject, picture, tokenizer

_FIVE_AXES = ("idefics2", "idefics3", "smolvlm")  # whose pixels come as tiles of pictures
_PREFIXES = ("paligemma",)  # which number kinds of tokens, not pictures
_FIRST, _SECOND = picture(40, 30, 0), picture(61, 43, 1)


class PlainProcessor:
    """Words are token ids; pictures become pixels of one size, or patches on a grid."""

    image_token = "<image>"

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        self.tokenizer = tokenizer(self.image_token)
        self.image_processor = self
        self._kind, self._token = config.model_type, getattr(config, "image_token_id", None)
        call = getattr(model, "get_image_features", None) or model.base_model.get_image_features
        self._known = inspect.signature(call).parameters
        self._tower = getattr(config, "vision_config", config)
        given = self._pixels([_FIRST])
        with torch.inference_mode():
            features = call(**given, return_dict=True).pooler_output
        whole = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
        self._count = whole.reshape(-1, whole.shape[-1]).shape[0]

    def __call__(self, text: Sequence[str], images: Sequence[Sequence[Any]], return_tensors: str) -> Mapping[str, Any]:
        """As a processor of transformers."""
        given, ids = self._pixels(images[0]), []
        counts = iter(self._counts(given, len(images[0])))
        for word in text[0].replace(self.image_token, f" {self.image_token} ").split():
            ids += [self._token] * next(counts) if word == self.image_token else [int(word.lstrip("w")) % 200]
        tokens = torch.tensor([ids])
        is_piece = (tokens == self._token).long()
        kinds = {"token_type_ids": 0 * tokens} if self._kind in _PREFIXES else {"mm_token_type_ids": is_piece}
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **kinds, **given}

    def _pixels(self, images: Sequence[Any]) -> dict[str, Any]:
        if "image_grid_thw" in self._known:
            patch, merge = getattr(self._tower, "patch_size", 8), getattr(self._tower, "spatial_merge_size", 2)
            reads = transformers.Qwen2VLImageProcessorPil(
                patch_size=patch,
                merge_size=merge,
                temporal_patch_size=getattr(self._tower, "temporal_patch_size", 2) or 1,
                size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
            )
            self._merged = merge**2
            return dict(reads(list(images), return_tensors="pt"))
        size = getattr(self._tower, "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        arrays = [np.asarray(image.resize((size, size)), dtype=np.float32) / 127 - 1 for image in images]
        pixels = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
        sizes = {"image_sizes": torch.tensor([[size, size]] * len(images))} if "image_sizes" in self._known else {}
        return {"pixel_values": pixels[None] if self._kind in _FIVE_AXES else pixels, **sizes}

    def _counts(self, given: Mapping[str, Any], count: int) -> list[int]:
        if "image_grid_thw" not in given:
            return [self._count] * count
        return [int(n) // self._merged for n in given["image_grid_thw"].prod(-1)]


class _Swept(Subject):
    def __init__(self, model_type: str) -> None:
        if model_type in FAMILIES:
            super().__init__(model_type)
        else:
            model = of_config(shrunk(model_type))
            self._hold(model, PlainProcessor(model), 2048)


def judge_pictures(model_type: str) -> dict[str, Any]:
    """`verdict` (exact, refused, wrong, crash, not-built) and why, with how long it took."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    verdict, why = _judged(model_type)
    return {"name": model_type, "verdict": verdict, "why": why, "seconds": round(time.perf_counter() - started, 1)}


def _judged(model_type: str) -> tuple[str, str]:
    try:
        subject = _Swept(model_type)
    except paceline.PacelineError as error:
        return "refused", first_line(error)
    except Exception as error:
        return "not-built", f"{type(error).__name__}: {first_line(error)}"
    try:
        return _checked(subject)
    except paceline.PacelineError as error:
        return "refused", first_line(error)
    except Exception as error:
        return "crash", f"{type(error).__name__}: {first_line(error)}"


def _checked(subject: Subject) -> tuple[str, str]:
    for parts in ((3, _FIRST, 9), (70, _FIRST, 2, _SECOND, 5)):
        prompt = subject.prompt(*parts)
        out = subject.llm.generate(prompt, max_tokens=10, temperature=0.0, ignore_eos=True)
        if list(out.token_ids) != subject.generated(prompt, 10):
            return "wrong", f"greedy tokens are not those of generate, over {len(prompt.pictures)} pictures"
    jobs = [subject.job(subject.prompt(40 + n, _SECOND, n), n, temperature=0.7 * n) for n in (1, 30)]
    odd = subject.plain.differences(jobs, decode(subject.target, jobs, RandomTrees(subject.plain, jobs)))
    return ("wrong", odd[0]) if odd else ("exact", "")
