"""BigBird as a decoder, which has no sparse blocks: attention as usual."""

from __future__ import annotations

from typing import Any

from paceline.model.private import adapt
from paceline.model.private.adapters import adapter
from paceline.model.private.bert_like import self_attention

self_attention("big_bird.BigBirdSelfAttention")


@adapter("big_bird.BigBirdModel")
def _model(module: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    """A short prompt would switch blocks off; here they are off from the beginning."""
    if module.attention_type != "original_full":
        module.set_attention_type("original_full")
        adapt(module)
    return original(*args, **kwargs)
