"""Files of the bundled models, decoded: the target in four bits, its draft model in eight."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import paceline
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET
from paceline.cli import app
from paceline.native.library import library
from paceline.pacing import FixedPacer

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
PROMPT = "Once upon a time, there was a little"


def written(folder: Path, name: str, kind: str) -> str:
    done = CliRunner().invoke(app, ["convert", name, str(folder / f"{name}.gguf"), "--type", kind])
    assert done.exit_code == 0, done.output
    return str(folder / f"{name}.gguf")


def test_a_file_drafts_for_a_file_and_changes_no_byte(tmp_path: Path) -> None:
    target, draft = written(tmp_path, DEFAULT_TARGET, "Q4_K_M"), written(tmp_path, DEFAULT_DRAFT, "Q8_0")
    with paceline.LLM(target, draft_model=draft) as llm:
        out = llm.generate(PROMPT, max_tokens=41, temperature=0.9, seed=11, pacer=FixedPacer(5))
        plain = llm.generate(PROMPT, max_tokens=41, temperature=0.9, seed=11, drafters="none")
        kinds = {kind.becomes for kind in llm.info.contents}
    assert out.token_ids == plain.token_ids
    assert out.stats.num_accepted_draft_tokens > 5
    assert {"Q4_K", "Q6_K"} <= kinds
