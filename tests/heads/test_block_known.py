"""A head that is named beside the model joins the automatic drafters, by the drafter of its own kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import paceline
from exactness.models import build
from heads.making import block_head
from paceline.drafters import automatic
from paceline.drafters.block import BlockDrafter
from paceline.engine.request import Environment
from paceline.errors import ModelError
from paceline.heads.formats.speculators_dspark import Verifier, write_head

ANY = automatic(Environment(None, 0, "cpu"))[0]


def test_a_folder_joins_what_is_asked_for(tmp_path: Path) -> None:
    model = build("llama", torch.float32)
    write_head(block_head(model, taps=(1, 2)), tmp_path, Verifier.of(model, "x"), torch.float32)
    (tmp_path / "away").mkdir()
    prompt = list(range(7, 40))
    with paceline.load(model, drafters="none") as llm:
        plain = llm.generate(prompt, max_tokens=20, ignore_eos=True)
    with paceline.load(model, drafters=[ANY, BlockDrafter(path=str(tmp_path), probe=False)], head=tmp_path) as llm:
        assert [drafter.name for drafter in llm.runtime.drafters][:2] == [ANY, BlockDrafter.name]
        assert llm.generate(prompt, max_tokens=20, ignore_eos=True).token_ids == plain.token_ids
        llm.generate(prompt, max_tokens=5, drafters="none")
    with pytest.raises(ModelError, match=r"no head that is known|config\.json"):
        paceline.load(model, drafters="none", head=tmp_path / "away")


def test_one_in_memory_is_automatic() -> None:
    model = build("llama", torch.float32)
    with paceline.load(model, head=block_head(model)) as llm:
        names = {drafter.name for drafter in llm.runtime.drafters}
        assert {BlockDrafter.name, ANY} <= names
    with paceline.load(model) as llm:
        assert not any(drafter.reads_hidden_states for drafter in llm.runtime.drafters)
