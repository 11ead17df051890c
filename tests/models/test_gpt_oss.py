"""gpt-oss as it is published: experts in MXFP4, in a folder that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paceline
from models.families import WINDOW, Loaded, check_bits, tiny
from paceline.model.agreement import distance
from paceline.native.library import library

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def write(folder: Path) -> torch.nn.Module:
    """A checkpoint, and the model that it means in floats."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 12, "num_local_experts": 5}
    model = tiny("gpt_oss", **sizes, num_experts_per_tok=2, sliding_window=WINDOW)
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, parameter in model.named_parameters():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = parameter.detach().clone()
            continue
        experts, k, rows = parameter.shape  # the model keeps them transposed
        octets = torch.randint(0, 256, (experts, rows, k // 32, 16), generator=random, dtype=torch.uint8)
        scales = torch.randint(122, 126, (experts, rows, k // 32), generator=random, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": octets, f"{name}_scales": scales}
        codes = torch.stack([octets & 15, octets >> 4], -1).flatten(-2)
        values = LEVELS[codes.int()] * torch.exp2(scales[..., None].float() - 127)
        with torch.no_grad():
            parameter.copy_(values.flatten(2).transpose(1, 2))
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.skipif(library() is None, reason="quantised weights need the native kernels")
def test_its_experts_are_decoded_from_their_blocks(tmp_path: Path):
    model = write(tmp_path)
    loaded = Loaded(model, str(tmp_path))
    assert "MXFP4" in {kind.name for kind in loaded.llm.info.contents}
    greedy = loaded.job(150, 7, 20)
    text = [*greedy.prompt, *loaded.plain[greedy].tokens]
    with torch.inference_mode():
        theirs = model(torch.tensor([text])).logits[0, 149:-1]
    ours = torch.stack([torch.from_numpy(row) for row in loaded.plain[greedy].rows])
    # The kernels round inputs to eight bits, which sends some rows to other experts: the median row counts.
    assert distance(ours, theirs, has_experts=True) < 0.05
    check_bits(loaded, greedy)
    loaded.llm.close()


def test_one_without_its_scales_is_refused(tmp_path: Path):
    write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.down_proj_scales"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(paceline.ModelError, match="down_proj_scales"):
        paceline.load(str(tmp_path))
