"""Attention with sinks, and layers that call it more than once: exact as any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import paceline
from models.families import WINDOW, Loaded, check, kernels, tiny
from paceline.model import interface
from paceline.native.library import library

WINDOWED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "granite_swa": {**WINDOWED, "head_dim": 12},
    "diffllama": {"hidden_size": 56},
    "dory": {"seed": 1, "num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "hrm_text": {"hidden_size": 56, "num_hidden_layers": 1, "H_cycles": 1},
}
# PyTorch computes the gates between an expert's products: whole vectors.
_EXPERTS = {**WINDOWED, "hidden_size": 64, "intermediate_size": 64, "num_experts_per_tok": 2}
EXPERTS: dict[str, dict[str, Any]] = {
    "gpt_oss": {**_EXPERTS, "head_dim": 12, "num_local_experts": 5},
    "granitemoe_swa": {**_EXPERTS, "num_local_experts": 5},
    "mimo_v2_flash": {**_EXPERTS, "head_dim": 12, "n_routed_experts": 5, "moe_intermediate_size": 64},
    "flint": {**_EXPERTS, "num_experts": 5, "moe_intermediate_size": 64, "mlp_only_layers": [0]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_exact(family: str):
    loaded = Loaded(tiny(family, **FAMILIES[family]))
    check(loaded)
    loaded.llm.close()


@pytest.mark.parametrize("family", ["granite_swa", "diffllama"])
def test_it_is_exact_without_native_kernels(family: str):
    with kernels("0"):
        loaded = Loaded(tiny(family, **FAMILIES[family]))
        check(loaded)
        loaded.llm.close()


@pytest.mark.skipif(library() is None, reason="no native kernels")
@pytest.mark.parametrize("family", EXPERTS)
def test_it_is_exact_with_experts(family: str):
    settings = EXPERTS[family]
    loaded = Loaded(tiny(family, **settings))
    check(loaded)
    loaded.llm.close()


def test_sinks_that_are_lost_are_found_out(monkeypatch: pytest.MonkeyPatch):
    attend = interface.paceline_attention
    monkeypatch.setitem(
        interface.AttentionInterface._global_mapping,
        interface.ATTENTION_NAME,
        lambda *tensors, s_aux=None, **how: attend(*tensors, **how),
    )
    model = tiny("granite_swa", **WINDOWED, head_dim=12)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.fill_(2.0)
    with pytest.raises(paceline.ModelError, match="differ from the model's"):
        Loaded(model)
