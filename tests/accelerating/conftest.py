"""One tiny model, accelerated once, whose drafts are told the truth and many untruths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import paceline
from accelerating.same import assert_same, own
from accelerating.told import Told
from models.families import VOCAB, tiny
from paceline.pacing import FixedPacer

ENDS = [5, 9, 17, 33, 64, 80, 101]


@dataclass
class Pair:
    """An accelerated model and its drafter."""

    model: PreTrainedModel
    told: Told

    def assert_same(self, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """`assert_same`, with drafts that know the text."""
        prompts = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(prompts))
        texts = own(self.model, **inputs, **kwargs)
        self.told.tell(text[int((seen == 0).sum()) :].tolist() for text, seen in zip(texts, mask, strict=True))
        return assert_same(self.model, inputs, **kwargs)


@pytest.fixture(scope="package")
def pair() -> Iterator[Pair]:
    """A Llama of two layers, which always drafts as much as it is offered."""
    told, model = Told(VOCAB), tiny("llama")
    paceline.accelerate(model, drafters=[told], cache_tokens=4096)
    model.generate.llm.engine.pacer = FixedPacer(8)  # type: ignore[attr-defined]
    yield Pair(model, told)
    paceline.unaccelerate(model)


def batch(*lengths: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of random ids, padded on the left."""
    width, generator = max(lengths), torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCAB, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) >= width - torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}
