"""From what a caller names to an `LLM`: the model, its tokenizer, what its forwards cost, and the pacer."""

from __future__ import annotations

import os
from typing import Any

from paceline.bundled import DEFAULT_TARGET
from paceline.engine.tree import MAX_DEPTH
from paceline.errors import ConfigError
from paceline.llm import LLM, Drafters
from paceline.pacing import MAX_SLOWDOWN, AdaptivePacer, CostTable, forward_costs
from paceline.text.tokenizer import load_tokenizer


def load(
    model: Any = None,
    *,
    tokenizer: Any = None,
    drafters: Drafters = "auto",
    draft_model: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    cache_tokens: int | None = None,
    max_slowdown: float = MAX_SLOWDOWN,
    num_speculative_tokens: int | None = None,
    trust_remote_code: bool = False,
) -> LLM:
    """A model ready to decode: the bundled one, a hub name, a local folder, or a `PreTrainedModel`.

    A `PreTrainedModel` is left as it is: Paceline works on a copy that shares its weights.

    Args:
        model: what to load; None is the bundled `paceline-tiny`.
        tokenizer: a tokenizer, or where to load it from; None is the model's own.
        drafters: "auto", "none", or a list of names, option strings (`"suffix:min_match=3"`) or objects.
        draft_model: a small model of the same vocabulary, as `model`; it joins the automatic drafters.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" is the checkpoint's; "float32", "bfloat16" or "float16".
        cache_tokens: positions that the key/value pool holds; None sizes it from free memory.
        max_slowdown: by what share decoding may be slower than plain decoding, whatever the text.
        num_speculative_tokens: most draft tokens per step and request; None is as many as pay.
        trust_remote_code: run code that comes with a checkpoint.

    Raises:
        ModelError: the model or tokenizer cannot be read, or not be decoded exactly.
        ConfigError: an option that is not allowed.
    """
    from paceline.model.loading import load_target

    _check_pacing(max_slowdown, num_speculative_tokens)
    source = DEFAULT_TARGET if model is None else os.path.expanduser(model) if isinstance(model, str) else model
    target, info = load_target(
        source, dtype=dtype, device=device, cache_tokens=cache_tokens, trust_remote_code=trust_remote_code
    )
    costs = CostTable(forward_costs(target, info.name))
    pacer = AdaptivePacer(costs, max_slowdown, MAX_DEPTH if num_speculative_tokens is None else num_speculative_tokens)
    words = load_tokenizer(tokenizer if tokenizer is not None else source, target, trust_remote_code)
    return LLM(target, words, drafters=drafters, draft_model=draft_model, pacer=pacer, info=info)


def _check_pacing(max_slowdown: float, most: int | None) -> None:
    if not 0.0 <= max_slowdown <= 10.0:
        raise ConfigError(f"max_slowdown is {max_slowdown!r}; allowed: a number in [0, 10]")
    if most is not None and not 0 <= most <= MAX_DEPTH:
        raise ConfigError(f"num_speculative_tokens is {most!r}; allowed: an integer from 0 to {MAX_DEPTH}")
