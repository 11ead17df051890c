"""A head that is written is read again, and what is no head is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from paceline.errors import ModelError
from paceline.heads.formats.speculators_dspark import Verifier, read_head, write_head
from training import tiny

ABOUT = Verifier("some/target", ("LlamaForCausalLM",))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"transition": "gated", "num_layers": 2},
        {"transition": "rnn", "rank": 5},
        {"rank": 0, "taps": (2,)},
        {"is_causal": True},
        {"predicts_from_anchor": False},
    ],
    ids=str,
)
def test_what_was_written_is_read(tmp_path: Path, fields: dict[str, Any]) -> None:
    head = tiny.head(**fields)
    write_head(head, tmp_path, ABOUT, torch.float32)
    found = read_head(tmp_path)
    assert not found.training
    for name in ("taps", "block_size", "mask_token_id", "is_causal", "predicts_from_anchor", "transition", "rank"):
        assert getattr(found.config, name) == getattr(head.config, name)
    assert found.config.num_logits == tiny.VOCABULARY
    assert found.own_state().keys() == head.own_state().keys()
    assert all(torch.equal(value, head.own_state()[name]) for name, value in found.own_state().items())
    again = tmp_path / "again"
    write_head(found, again, ABOUT, torch.float32)
    assert json.loads((again / "config.json").read_text()) == json.loads((tmp_path / "config.json").read_text())


def test_tokens_of_a_smaller_vocabulary_are_offsets_in_the_file(tmp_path: Path) -> None:
    head = tiny.head(draft_vocab_size=5)
    head.lm_head = torch.nn.Linear(tiny.WIDTH, 5, bias=False)
    head.d2t = torch.tensor([0, 2, 3, 11, 22])
    write_head(head, tmp_path, ABOUT, torch.float32)
    weights = load_file(tmp_path / "model.safetensors")
    assert weights["d2t"].tolist() == [0, 1, 1, 8, 18]
    weights["lm_head.weight"] = head.lm_head.weight.detach()
    save_file(weights, tmp_path / "model.safetensors")
    found = read_head(tmp_path)
    assert found.d2t is not None
    assert found.d2t.tolist() == head.d2t.tolist()
    assert torch.equal(found.lm_head.weight, head.lm_head.weight)


def test_what_is_written_is_small_and_whole(tmp_path: Path) -> None:
    head = tiny.head()
    head.bind(tiny.target())
    write_head(head, tmp_path, ABOUT)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert not [name for name in weights if name.startswith(("embed_tokens", "lm_head"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "cannot read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04pickle"), "cannot read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no head"),
        (lambda folder: _change(folder, markov_rank=4), "shapes"),
        (lambda folder: _change(folder, markov_rank=0), "no place"),
        (lambda folder: _change(folder, mask_token_id=tiny.VOCABULARY), "mask_token_id"),
        (lambda folder: _change(folder, aux_hidden_state_layer_ids=None), "cannot be used"),
        (lambda folder: _change(folder, markov_head_type="gru"), "vanilla, gated, rnn"),
        (lambda folder: _change(folder, draft_vocab_size=5, markov_rank=3), "shapes"),
    ],
)
def test_what_is_no_head_is_refused(tmp_path: Path, fault: Any, words: str) -> None:
    write_head(tiny.head(), tmp_path, ABOUT)
    fault(tmp_path)
    with pytest.raises(ModelError, match=words):
        read_head(tmp_path)


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
