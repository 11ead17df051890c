"""What a request tells drafters, in vLLM's words: `vllm_xargs` with `paceline_tenant` and `paceline_prediction`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paceline.engine.request import Hints

TENANT, PREDICTION = "paceline_tenant", "paceline_prediction"
MAX_PREDICTION = 65_536  # tokens
MAX_CHARACTERS = 65_536  # of a text, which is cut into tokens between two steps of vLLM: all requests wait for it


def read_hints(extra: Mapping[str, Any], tokenizer: Any) -> Hints:
    """Of what a request says, that which makes sense: hints change the speed alone, so nothing is refused."""
    tenant = extra.get(TENANT, "")
    return Hints(_prediction(extra.get(PREDICTION), tokenizer), str(tenant))


def _prediction(said: Any, tokenizer: Any) -> tuple[int, ...]:
    if isinstance(said, str) and tokenizer is not None:
        said = list(tokenizer.encode(said[:MAX_CHARACTERS], add_special_tokens=False))
    if not isinstance(said, list) or not all(type(token) is int for token in said):
        return ()
    return tuple(said[:MAX_PREDICTION])
