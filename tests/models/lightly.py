"""The promise in little, for families whose kin is checked in full: transformers' text, and plain bits with drafts."""

from __future__ import annotations

from exactness.decoding import RandomTrees, decode
from exactness.greedy import assert_greedy
from models.families import Loaded


def check_lightly(loaded: Loaded, length: int = 140, num_tokens: int = 6) -> None:
    """Greedy text of transformers over several pages, and the same bits where rows of trees are around."""
    job = loaded.job(length, 3, num_tokens)
    assert_greedy(loaded.model, job.prompt, num_tokens, loaded.plain[job].tokens)
    trees = RandomTrees(loaded.plain, [job], 1, style="always", fill=True)
    assert loaded.plain.differences([job], decode(loaded.target, [job], trees, budget=6)) == []
