"""Folders that hold no head that can be trusted are refused in a sentence: what it is, and what would be allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from heads.reference import Tensors
from heads.writers import SIZES, VOCAB, WIDE, Drawn, raw_eagle3, speculators, write
from paceline.errors import ModelError
from paceline.heads.formats import open_head

Edit = Callable[[dict[str, Any], Tensors], Any]


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw_eagle3()))
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    (tmp_path / "pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(ModelError, match=r"are pickles \(pytorch_model.bin\).*allowed: safetensors"):
        open_head(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c, w: w.pop("fc.weight"), "fc.weight is missing|lacks fc.weight"),
        (lambda c, w: w.pop("midlayer.mlp.up_proj.weight"), r"lacks layers.0.mlp.up_proj.weight \[24, 16\]"),
        (lambda c, w: w.update({"midlayer.extra.weight": torch.ones(2)}), "layers.0.extra.weight is no part of such"),
        (lambda c, w: w.update({"norm.weight": torch.ones(9)}), r"norm.weight is \[9\]; allowed.*\[16\]"),
        (lambda c, w: w.update({"norm.weight": torch.ones(WIDE).int()}), "norm.weight is I32"),
        (lambda c, w: c.update(hidden_size=10**9), "hidden_size is 1000000000; allowed: 1 to 65536"),
        (lambda c, w: c.update(draft_vocab_size=VOCAB + 1), "draft_vocab_size is 49; allowed: 1 to 48"),
        (lambda c, w: c.update(norm_output="yes"), "norm_output is 'yes'; allowed: true or false"),
        (lambda c, w: c.update(eagle_aux_hidden_state_layer_ids=[1, -5]), "allowed: 1 to 64 numbers of layers"),
        (lambda c, w: c.update(hidden_act="loud"), r"no head can be built of its configuration \(KeyError"),
        (lambda c, w: c.update(rope_scaling={"rope_type": "helix", "factor": 2.0}), "cannot be read|can be built"),
        (lambda c, w: w.pop("d2t"), "knows 20 of 48 tokens, and neither d2t nor t2d says which"),
        (lambda c, w: w.update(d2t=torch.full((20,), 40)), "d2t names no 20 different tokens below 48"),
        (lambda c, w: w.update(d2t=torch.zeros(21, dtype=torch.int64)), r"d2t is I64 \[21\]"),
        (lambda c, w: w.update(t2d=torch.ones(VOCAB, dtype=torch.bool)), "as t2d has them"),
    ],
)
def test_what_does_not_make_a_head_is_named(edit: Edit, message: str, tmp_path: Path) -> None:
    drawn = Drawn(1)
    config, weights = raw_eagle3(draft_vocab_size=20), drawn.eagle3("midlayer.", 20)
    weights["d2t"] = drawn.kept(20) - torch.arange(20)
    edit(config, weights)
    with pytest.raises(ModelError, match=message):
        open_head(write(tmp_path, config, weights))


@pytest.mark.parametrize("is_told", [False, True])
def test_tokens_stored_in_place_of_offsets_are_told_by_the_mask(is_told: bool, tmp_path: Path) -> None:
    kept = torch.tensor([1, 5, 8, 30])
    weights = Drawn(2).eagle3("midlayer.", 4) | {"d2t": kept}
    if is_told:
        weights["t2d"] = torch.isin(torch.arange(VOCAB), kept)
    found = open_head(write(tmp_path, raw_eagle3(draft_vocab_size=4), weights))
    if is_told:
        assert torch.equal(found.module.d2t, kept)
        assert len(found.vocabularies) == 1
    else:  # the probe will tell
        assert [ids.tolist() for ids in found.vocabularies] == [(kept + torch.arange(4)).tolist(), kept.tolist()]


def test_a_mask_alone_says_which_tokens_are_known(tmp_path: Path) -> None:
    kept = torch.tensor([1, 5, 8, 30])
    weights = Drawn(2).eagle3("midlayer.", 4) | {"t2d": torch.isin(torch.arange(VOCAB), kept)}
    assert torch.equal(open_head(write(tmp_path, raw_eagle3(draft_vocab_size=4), weights)).module.d2t, kept)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "says of itself 'LlamaForCausalLM', which is no head"),
        (speculators("dflash2"), "says of itself 'dflash2'"),
        ({"dflash_config": {"projector_type": "domino"}}, "projector_type is 'domino'; allowed: dflash, dspark"),
        ({"medusa_num_heads": 99}, "lack their first block"),
    ],
)
def test_what_is_no_head_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_head(write(tmp_path, config, {"norm.weight": torch.ones(4)}))


def test_an_empty_folder_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        open_head(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        open_head(tmp_path)
    write(tmp_path, raw_eagle3(), Drawn(1).eagle3("midlayer."))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ModelError, match="no whole safetensors file"):
        open_head(tmp_path)


def test_a_head_of_another_target_is_refused(tmp_path: Path, target: LlamaForCausalLM) -> None:
    folder = write(tmp_path, raw_eagle3(), Drawn(1).eagle3("midlayer."))
    wide = LlamaForCausalLM(LlamaConfig(**{**SIZES, "hidden_size": 2 * WIDE}, num_hidden_layers=2))
    with pytest.raises(ModelError, match=r"reads hidden states of 16, .* have 32"):
        open_head(folder).module.bind(wide)
    few = LlamaForCausalLM(LlamaConfig(**{**SIZES, "vocab_size": VOCAB - 1}, num_hidden_layers=4))
    with pytest.raises(ModelError, match="knows 48 tokens; allowed: the target's 47"):
        open_head(folder).module.bind(few)
    deep = write(
        tmp_path / "deep", raw_eagle3(eagle_aux_hidden_state_layer_ids=[0, 1, 7]), Drawn(1).eagle3("midlayer.")
    )
    with pytest.raises(ModelError, match=r"reads taps \[1, 2, 8\]; allowed for a target of 4 layers: 0 to 5"):
        open_head(deep).module.bind(target)
