"""A sample of what `scripts/coverage` sweeps: families of each kind that decode exactly, one check each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models.families import Loaded, check, of_config
from paceline.native.library import library

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from sweeping.shrink import FIRST_SPECIAL, shrunk

DENSE = (
    "cohere2",
    "exaone4",
    "gemma3_text",
    "glm4",
    "minicpm3",
    "ministral3",
    "nemotron",
    "olmo3",
    "opt",
    "phi",
    "smollm3",
)
EXPERTS = ("deepseek_v3", "ernie4_5_moe", "glm4_moe", "gpt_oss", "granitemoeshared", "olmoe", "qwen3_moe")
COMPOSITE = ("gemma3", "gemma4", "idefics3", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("family", [*DENSE, *EXPERTS, *COMPOSITE])
def test_it_is_exact(family: str):
    if family in EXPERTS and library() is None:
        pytest.skip("experts need the native kernels")
    loaded = Loaded(of_config(shrunk(family)), vocab=FIRST_SPECIAL)
    check(loaded, 10)
    loaded.llm.close()
