"""Whole logits have the same bits on every instruction set that fuses: of quantised and of float32 models."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from transformers import PreTrainedModel

from exactness.models import build
from exactness.quantized import MODELS, Rounded
from native.sets import all_sets
from paceline.model.building import build as build_quantized
from paceline.model.decoder import Decoder
from paceline.model.inspect import anatomy
from paceline.model.interface import ATTENTION_NAME
from paceline.model.numerics import apply
from paceline.model.pool import PagePool
from paceline.model.proving import candidates
from paceline.model.quantized import cache_dtype
from paceline.model.rows import TreeWork
from paceline.native.library import VARIABLE, library

FUSED = [found.name for found in all_sets() if found.name != "portable"]  # which rounds a product before it adds
pytestmark = pytest.mark.skipif(len(FUSED) < 2, reason="a single instruction set")


def logits_of(model: PreTrainedModel) -> np.ndarray:
    """Of a tree behind more than a chunk's worth of prompt, on whatever `library` gives."""
    parts = anatomy(model)
    apply(model, candidates(model)[0])
    model.config._attn_implementation = ATTENTION_NAME
    decoder = Decoder(model, PagePool(parts.layers, 16, cache_dtype(model), model.device), (64,), parts.max_length)
    assert decoder.is_exact_by_construction
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 200, 581)]
    sequence = decoder.pool.reserve(640)
    decoder.prefill(sequence, tokens[:541])
    return decoder.forward([TreeWork(sequence, tokens[541:], [-1, *((i - 1) // 2 for i in range(1, 40))])])


def assert_alike(make) -> None:
    found = {}
    for name in FUSED:
        with patch.dict("os.environ", {VARIABLE: name}):
            library.cache_clear()
            found[name] = logits_of(make()).tobytes()
        library.cache_clear()
    assert [name for name in FUSED if found[name] != found[FUSED[0]]] == []


@pytest.mark.parametrize("architecture", MODELS)
def test_quantised_models(architecture: str):
    checkpoint = Rounded(build(architecture), MODELS[architecture])
    assert_alike(lambda: build_quantized(checkpoint))


@pytest.mark.parametrize("architecture", ["llama-odd", "gemma3"])
def test_models_in_float32(architecture: str):
    assert_alike(lambda: build(architecture))
