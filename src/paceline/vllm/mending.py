"""A fault of vLLM's that ends the engine wherever anything drafts: mended as the drafter is made.

With any speculative_config, vLLM 0.31 and 0.32 apply top_k to the rows of drafts even if a step has none, and on a CPU
the maximum of nothing is an error: the first request with a `top_k` ends the engine, with `ngram` as with ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACE, _NAME = "vllm.v1.sample.ops.topk_topp_sampler", "apply_top_k_only"


def mend_top_k() -> None:
    """Have top_k leave no rows as they are. Where vLLM has no such function there is nothing to mend."""
    place = import_module(_PLACE)
    original = getattr(place, _NAME, None)
    if original is None or getattr(original, "is_mended", False):
        return

    def mended(logits: Any, k: Any) -> Any:
        return original(logits, k) if len(logits) else logits

    mended.is_mended = True  # type: ignore[attr-defined]
    setattr(place, _NAME, mended)
