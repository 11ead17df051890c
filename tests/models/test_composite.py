"""Checkpoints for pictures and text, asked for text: the language model inside, whole and exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

import paceline
from models.families import SIZES, Loaded, check, of_config
from paceline.architectures import auto_class
from paceline.model.pretrained import read_model

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}
TEXT = {**SIZES, "model_type": "llama"}
LLAVA = {"text_config": TEXT, "vision_config": {"model_type": "clip_vision_model", **VISION, "patch_size": 14}}


def llava() -> torch.nn.Module:
    return of_config(AutoConfig.for_model("llava", **LLAVA, image_token_id=130))


def test_a_folder_of_one_is_decoded_and_says_what_it_is_given(tmp_path: Path):
    model = llava()
    model.save_pretrained(tmp_path)
    loaded = Loaded(model, str(tmp_path))
    assert loaded.llm.info.architecture == "LlavaForConditionalGeneration"
    assert loaded.llm.info.verdict.endswith("of sound and films it is given none")
    check(loaded)
    loaded.llm.close()


def test_a_weight_that_its_language_model_lacks_is_named(tmp_path: Path):
    """As of a checkpoint that is read by the class for text alone: its names are others."""
    llava().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(paceline.ModelError, match=r"are not in the checkpoint: lm_head\.weight"):
        read_model(tmp_path, "auto", torch.device("cpu"))


@pytest.mark.parametrize(
    ("saved_as", "wanted"),
    [
        ("Llama4ForCausalLM", "AutoModelForCausalLM"),
        ("Llama4ForConditionalGeneration", "AutoModelForMultimodalLM"),
        (None, "AutoModelForMultimodalLM"),
    ],
)
def test_what_it_was_saved_as_decides_where_both_kinds_are_known(saved_as: str | None, wanted: str):
    config = AutoConfig.for_model("llama4")
    config.architectures = [saved_as] if saved_as else None
    assert auto_class(config).__name__ == wanted
