"""What tests of the certificate share."""

from __future__ import annotations

from paceline.llm import LLM
from paceline.pacing import FixedPacer


def fresh(llm: LLM, target=None) -> LLM:
    """An LLM of its own over the same target."""
    return LLM.from_target(target or llm.target, llm.tokenizer, drafters="none", pacer=FixedPacer())
