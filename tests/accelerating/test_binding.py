"""What becomes of the model itself: nothing."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationMixin, LlamaForCausalLM

import paceline
from accelerating.conftest import Pair, batch
from accelerating.same import own
from models.families import tiny

FOLDER = Path(__file__).parents[2] / "recipes" / "custom_generate"


def test_the_class_the_signature_and_the_weights_stay(pair: Pair) -> None:
    assert type(pair.model) is LlamaForCausalLM
    assert "inputs" in inspect.signature(pair.model.generate).parameters
    assert pair.model.generate.__doc__ == GenerationMixin.generate.__doc__
    assert not any("generate" in name for name in pair.model.state_dict())


def test_copies_and_pickles_have_the_generate_of_their_class(tmp_path: Path) -> None:
    model, inputs = paceline.accelerate(tiny("llama"), cache_tokens=1024), batch(4)
    wanted = own(model, **inputs, max_new_tokens=4)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.generate.__func__ is GenerationMixin.generate
        assert other.generate.__self__ is other
        assert torch.equal(other.generate(**inputs, max_new_tokens=4), wanted)
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.architectures == ["LlamaForCausalLM"]


def test_twice_and_back() -> None:
    model = tiny("llama")
    first = paceline.accelerate(model, drafters="none", cache_tokens=1024)
    assert first is model
    llm = model.generate.llm  # type: ignore[attr-defined]
    paceline.accelerate(model, drafters="none", cache_tokens=1024)
    with pytest.raises(paceline.StateError):
        llm.generate([1, 2])
    assert paceline.unaccelerate(paceline.unaccelerate(model)) is model
    assert "generate" not in vars(model)
    assert model.generate(**batch(3), max_new_tokens=2).shape == (1, 5)


def test_what_cannot_be_decoded_is_refused_at_once() -> None:
    class Own(LlamaForCausalLM):
        def generate(self, *args: object, **kwargs: object) -> None:
            raise NotImplementedError

    with pytest.raises(paceline.ModelError, match="a generate of its own"):
        paceline.accelerate(Own(tiny("llama").config))


def test_a_folder_of_custom_generate() -> None:
    """transformers' own way to another decoding method; nothing is bound."""
    model, inputs = tiny("llama", seed=2), batch(5, 3)
    call = {"max_new_tokens": 6, "pad_token_id": 0}
    found = model.generate(**inputs, **call, custom_generate=str(FOLDER), trust_remote_code=True)
    assert torch.equal(found, own(model, **inputs, **call))
    assert "generate" not in vars(model)
