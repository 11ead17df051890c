"""What vLLM's configuration says of the engine that is drafted for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from paceline.engine.tree import MAX_NODES


@dataclass(frozen=True)
class Facts:
    """What drafting needs to know.

    Args:
        vocab_size: of the model.
        max_length: of a request, prompt and output together.
        num_drafts: of a request in a step, at most.
        max_rows: of a step that drafts, pending tokens and all.
        tokenizer: the model's; None where vLLM runs without one.
        identity: what costs depend on, plain JSON.
    """

    vocab_size: int
    max_length: int
    num_drafts: int
    max_rows: int
    tokenizer: Any
    identity: dict[str, Any]


def facts_of(config: Any, version: str) -> Facts:
    """The facts in a `VllmConfig` of a release of vLLM."""
    model, scheduler = config.model_config, config.scheduler_config
    num_drafts = min(config.speculative_config.num_speculative_tokens, MAX_NODES)
    return Facts(
        vocab_size=model.get_vocab_size(),
        max_length=model.max_model_len,
        num_drafts=num_drafts,
        max_rows=min(scheduler.max_num_batched_tokens, scheduler.max_num_seqs * (1 + num_drafts)),
        tokenizer=_tokenizer(model),
        identity=_identity(config, version),
    )


def _identity(config: Any, version: str) -> dict[str, Any]:
    model, parallel = config.model_config, config.parallel_config
    return {
        "engine": f"vllm {version}",
        "model": str(model.model),
        "dtype": str(model.dtype),
        "quantization": str(model.quantization),
        "parallel": [parallel.tensor_parallel_size, parallel.pipeline_parallel_size],
        "device": str(config.device_config.device_type),
        "host": os.uname().nodename if hasattr(os, "uname") else "",
    }


def _tokenizer(model: Any) -> Any:
    if model.skip_tokenizer_init:
        return None
    from vllm.tokenizers import cached_tokenizer_from_config

    return cached_tokenizer_from_config(model)
