"""Tiny random models of any family, and one check of all that exactness promises of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

import paceline
from exactness.decoding import Job, PlainRuns, RandomTrees, decode
from exactness.greedy import assert_greedy
from paceline.architectures import auto_class
from paceline.native.library import VARIABLE, library

VOCAB = 131  # odd, and no multiple of any vector width
WINDOW = 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 56,
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def tiny(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """A random model of a `model_type`; `settings` override `SIZES`."""
    return of_config(transformers.AutoConfig.for_model(kind, **{**SIZES, **settings}), seed, dtype)


def of_config(config: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of a configuration, every parameter drawn so that it counts."""
    torch.manual_seed(seed)
    model = auto_class(config).from_config(config, attn_implementation="eager")
    redraw(model, seed)
    return model.to(dtype).eval()


def redraw(model: PreTrainedModel, seed: int = 0) -> None:
    """Draw every parameter anew: matrices as large as keep a row's size, gains around what they were, other vectors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue  # a table that is computed, and not saved
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(noise * (0.2 if "norm" in name or "bias" in name else 0.5))
            else:
                parameter.copy_(noise * (1.4 * parameter.shape[-1] ** -0.5))


@contextmanager
def kernels(setting: str) -> Iterator[None]:
    """With `PACELINE_NATIVE` set so: "" for the native kernels, "0" for none."""
    if setting == os.environ.get(VARIABLE, ""):
        yield
        return
    try:
        with patch.dict("os.environ", {VARIABLE: setting}):
            library.cache_clear()
            yield
    finally:
        library.cache_clear()


class Loaded:
    """A model behind an `LLM`, and what plain decoding of single jobs gives."""

    def __init__(
        self, model: PreTrainedModel, source: str | None = None, vocab: int | None = None, dtype: str = "auto"
    ) -> None:
        """`source` is a folder to load in the model's place; prompts are of tokens below `vocab`."""
        self.model = model
        self.llm = paceline.load(source or model, cache_tokens=4096, dtype=dtype)
        self.target = self.llm.target
        self.plain = PlainRuns(self.target)
        self.vocab = vocab or model.config.get_text_config().vocab_size

    def job(self, length: int, seed: int, max_tokens: int = 12, after: Sequence[int] = (), **options: Any) -> Job:
        """A request with a random prompt of `length` tokens behind those of another."""
        prompt = np.random.default_rng([length, seed]).integers(0, self.vocab, length)
        return Job((*after, *(int(t) for t in prompt)), {"max_tokens": max_tokens, **options}, seed)


def check(loaded: Loaded, num_tokens: int = 20) -> None:
    """All that is promised: transformers' greedy text; plain decoding's bits with trees, in batches and from the cache.

    Prompts are several pages of 64 positions long, and part after one page; their lengths are odd.
    """
    greedy = loaded.job(150, 7, num_tokens)
    assert_greedy(loaded.model, greedy.prompt, num_tokens, loaded.plain[greedy].tokens)
    check_bits(loaded, greedy)


def check_bits(loaded: Loaded, greedy: Job) -> None:
    """Plain decoding's bits: see `check`."""
    start = greedy.prompt[:70]
    jobs = [
        greedy,
        loaded.job(13, 1, after=start, temperature=1.0),
        loaded.job(71, 2, after=start),
        loaded.job(1, 3, temperature=0.7),
    ]
    for seed, style in enumerate(("mixed", "always")):
        drafter = RandomTrees(loaded.plain, jobs, seed, style=style, fill=True)
        traces = decode(loaded.target, jobs, drafter, budget=6 + 5 * seed)
        assert loaded.plain.differences(jobs, traces) == []
        assert sum(sum(trace.accepted) - len(trace.accepted) for trace in traces) > 0, "no draft was accepted"
    again = loaded.job(29, 5, after=greedy.prompt[:129])  # two pages of it are in the prefix cache
    fresh = PlainRuns(loaded.target)[again]
    assert PlainRuns(loaded.target).differences([again], [fresh]) == []


def check_translator(loaded: Loaded, num_tokens: int = 20) -> None:
    """The same of an encoder-decoder: `generate`'s greedy text, and plain decoding's bits with trees and in batches."""
    start = (int(loaded.model.generation_config.decoder_start_token_id),)
    lengths, temperatures = (13, 70, 130), (0.0, 1.0, 0.0)
    sources = [loaded.job(length, seed).prompt for seed, length in enumerate(lengths)]
    jobs = [
        Job(start, {"max_tokens": num_tokens, "temperature": temperature}, seed, source)
        for seed, (source, temperature) in enumerate(zip(sources, temperatures, strict=True))
    ]
    for one in (job for job in jobs if job.options["temperature"] == 0.0):
        options = {"do_sample": False, "num_beams": 1, "eos_token_id": None, "max_new_tokens": num_tokens}
        own = loaded.model.generate(torch.tensor([one.source]), **options)[0].tolist()
        assert own[1:] == loaded.plain[one].tokens, f"a source of {len(one.source)} tokens: {own[1:]}"
    drafter = RandomTrees(loaded.plain, jobs, style="always", fill=True)
    traces = decode(loaded.target, jobs, drafter, budget=9)
    assert loaded.plain.differences(jobs, traces) == []
    assert sum(sum(trace.accepted) - len(trace.accepted) for trace in traces) > 0, "no draft was accepted"
