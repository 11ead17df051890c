"""Faults of vLLM's that come out wherever anything drafts: mended as the drafter is made.

Both are there in vLLM 0.31 and 0.32 with any speculative_config, `ngram` among them, on a CPU:

- top_k is applied to the rows of drafts even if a step has none, and the maximum of nothing is an error. So the first
  request with a `top_k` ends the engine.
- Each draft's temperature, top_k and top_p are written into a copy, which is dropped. What is read is whatever was in
  memory: texts at a temperature are not the model's, and a large number as top_k ends the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

_TOP_K = ("vllm.v1.sample.ops.topk_topp_sampler", "apply_top_k_only")
_EXPAND = ("vllm.v1.sample.rejection_sampler", "expand_batch_to_tokens")


def mend(device: str) -> None:
    """Put right what is wrong on a kind of device. Where vLLM has no such function there is nothing to mend."""
    _replace(*_TOP_K, lambda original: lambda logits, k: original(logits, k) if len(logits) else logits)
    if device == "cpu":
        _replace(*_EXPAND, lambda _: expanded)


def expanded(values: Any, ends: Any, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
    """Each request's value for each of its drafts, whose numbers are summed up in `ends`: (drafts,) of (requests,)."""
    counts = ends.diff(prepend=ends.new_zeros(1))
    return values.masked_fill(values == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)


def _replace(place: str, name: str, mended: Callable[[Any], Any]) -> None:
    try:
        module = import_module(place)
    except ImportError:
        return
    original = getattr(module, name, None)
    if original is None or getattr(original, "is_mended", False):
        return
    replacement = mended(original)
    replacement.is_mended = True
    setattr(module, name, replacement)
