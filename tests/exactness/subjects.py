"""A subject: a tiny random model, what it was before it was loaded, and the `LLM` over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import PreTrainedModel

import paceline
from exactness.decoding import Job, PlainRuns
from exactness.models import VOCAB, build

LENGTHS = (1, 2, 63, 64, 65, 127, 128, 129, 191, 200, 257, 320, 383, 397)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.7},
    {"temperature": 1.0},
    {"temperature": 1.0, "top_k": 7, "top_p": 0.9},
    {"temperature": 0.7, "min_p": 0.02, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.2},
    {"temperature": 1.0, "presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"temperature": 1.0, "logit_bias": {3: 2.0, 5: float("-inf")}, "min_tokens": 9},
    {"temperature": 0.7, "stop_token_ids": tuple(range(0, VOCAB, 16)), "min_tokens": 5},
)


def job(length: int, seed: int, max_tokens: int = 17, **options: Any) -> Job:
    """A request with a random prompt of `length` tokens."""
    prompt = np.random.default_rng([length, seed]).integers(0, VOCAB, length)
    return Job(tuple(int(t) for t in prompt), {"max_tokens": max_tokens, **options}, seed)


JOBS = [job(length, i, 15 + i % 5, **OPTIONS[i % len(OPTIONS)]) for i, length in enumerate(LENGTHS)]


@dataclass(frozen=True)
class Snapshot:
    """What a caller can see of a model."""

    config: dict[str, Any]
    attention: str
    modules: list[tuple[str, type, bool]]
    tensors: dict[str, tuple[int, torch.Tensor]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Snapshot:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return cls(
            model.config.to_dict(),
            model.config._attn_implementation,
            [(name, type(module), module.training) for name, module in model.named_modules()],
            {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in tensors.items()},
        )

    def assert_still_true_of(self, model: PreTrainedModel) -> None:
        now = Snapshot.of(model)
        assert now.config == self.config
        assert now.attention == self.attention
        assert now.modules == self.modules
        assert now.tensors.keys() == self.tensors.keys()
        for name, (place, tensor) in self.tensors.items():
            assert now.tensors[name][0] == place, f"{name} was moved"
            assert torch.equal(now.tensors[name][1], tensor), f"{name} was changed"


class Subject:
    """A model, loaded through the front door."""

    def __init__(
        self,
        architecture: str,
        dtype: torch.dtype = torch.float32,
        *,
        train: bool = False,
        cache_tokens: int = 4096,
        **changes: Any,
    ) -> None:
        self.model = build(architecture, dtype, **changes).train(train)
        self.before = Snapshot.of(self.model)
        with patch("paceline.model.proving._PROBE_SECONDS", 60):  # every count is tried, however slow the machine
            self.llm = paceline.load(self.model, cache_tokens=cache_tokens)
        self.target = self.llm.target
        self.decoder = self.target.decoder
        self.pool = self.decoder.pool
        self.plain = PlainRuns(self.target)

    def own_logits(self, tokens: list[int], dtype: torch.dtype | None = None) -> np.ndarray:
        """(T, V) logits of the caller's model by its own eager attention, in its dtype or another."""
        model = self.model if dtype is None else build_like(self.model, dtype)
        with torch.inference_mode():
            return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def build_like(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A model with the same weights in another dtype."""
    other = type(model)._from_config(model.config, attn_implementation="eager")
    other.load_state_dict(model.state_dict())
    return other.to(dtype).eval()
