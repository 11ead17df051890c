"""The fingerprint of a model: any bit of a weight, any setting, the numeric path and the releases change it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import PreTrainedModel

from exactness.models import build
from paceline import LLM, load, provenance
from paceline.model import fingerprint
from paceline.model.fingerprint import model_digest
from paceline.model.numerics import apply, paths
from paceline.testing import ScriptedTarget, WrappedTarget

CPU = torch.device("cpu")
KINDS = [("llama-odd", torch.float32), ("gpt2", torch.bfloat16), ("mixtral", torch.float32)]


def tiny(architecture: str = "llama", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(3)
    return build(architecture, dtype)


def laid_out(model: PreTrainedModel, place: int) -> PreTrainedModel:
    """A model as it is decoded, on one of the numeric paths."""
    apply(model, paths(model.dtype, CPU)[place])
    return model


@pytest.mark.parametrize(("architecture", "dtype"), KINDS, ids=str)
def test_every_bit_of_every_weight_counts_on_every_numeric_path(architecture: str, dtype: torch.dtype) -> None:
    drawn = random.Random(architecture)
    names = [name for name, _ in tiny(architecture, dtype).named_parameters()]
    for place in range(len(paths(dtype, CPU))):
        whole = model_digest(laid_out(tiny(architecture, dtype), place))
        assert model_digest(laid_out(tiny(architecture, dtype), place)) == whole
        found = {whole}
        for name in drawn.sample(names, 5):
            changed = tiny(architecture, dtype)
            bits = changed.get_parameter(name).detach().view(torch.int32 if dtype == torch.float32 else torch.int16)
            bits.view(-1)[drawn.randrange(bits.numel())] ^= 1
            found.add(model_digest(laid_out(changed, place)))
        assert len(found) == 6


def test_values_and_layers_that_change_places_count() -> None:
    model, swapped = tiny(), tiny()
    weight = swapped.model.layers[0].mlp.up_proj.weight.detach()
    weight[[0, 1]] = weight[[1, 0]]
    assert model_digest(swapped) != model_digest(model)
    layers = swapped.model.layers
    layers[0], layers[1] = layers[1], layers[0]
    assert model_digest(swapped) != model_digest(model)


def test_a_setting_counts_and_the_place_it_was_read_from_does_not() -> None:
    model, other = tiny(), tiny()
    other.config._name_or_path = "elsewhere"
    assert model_digest(other) == model_digest(model)
    other.config.rms_norm_eps *= 2
    assert model_digest(other) != model_digest(model)


def test_tied_weights_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(fingerprint, "_digest", lambda piece: hashed.append(piece[1].data_ptr()) or b"")
    model = tiny()
    model.tie_weights()
    model.lm_head.weight = model.model.embed_tokens.weight
    model_digest(model)
    assert len(hashed) == len(set(hashed)) == len(list(model.parameters()))


def test_numerics_and_releases_count(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = {"path": "native", "threads": 2, "row_counts": [1, 2]}
    found = {provenance.fingerprint("a", numerics), provenance.fingerprint("b", numerics)}
    found |= {provenance.fingerprint("a", numerics | {"threads": 3})}
    monkeypatch.setattr(provenance, "__version__", "0")
    found |= {provenance.fingerprint("a", numerics)}
    monkeypatch.setattr(provenance.transformers, "__version__", "0")
    found |= {provenance.fingerprint("a", numerics)}
    assert len(found) == 5
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in found)


def test_an_llm_hashes_its_weights_once_whoever_asks() -> None:
    class Counted(WrappedTarget):
        count = 0

        def model_digest(self) -> str:
            self.count += 1
            return super().model_digest()

    target = Counted(ScriptedTarget(lambda history: [0.0, 1.0], vocab_size=2))
    llm = LLM.from_target(target, None)
    with ThreadPoolExecutor(4) as threads:
        found = {one.result() for one in [threads.submit(lambda: llm.fingerprint) for _ in range(8)]}
    assert found == {provenance.fingerprint("scripted", target.numerics())}
    assert target.count == 1


def test_a_model_read_again_has_the_same_fingerprint_before_and_after_it_decoded(bundled: LLM) -> None:
    before = bundled.fingerprint
    bundled.generate("Once", max_tokens=3)
    with load() as other:
        assert other.fingerprint == before == bundled.fingerprint
