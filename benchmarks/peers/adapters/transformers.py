"""transformers: `generate`, prompt lookup, assisted generation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from peers.protocol import Decode, Modes, Target, Turn, serve

_LOOKUP_TOKENS = 10  # as its documentation has it


def modes(target: Target) -> Modes:
    """All three read one model."""
    torch.set_num_threads(target.threads)
    model = _load(target.folder)
    found = {
        "generate": lambda: _decode(model),
        "prompt lookup": lambda: _decode(model, prompt_lookup_num_tokens=_LOOKUP_TOKENS),
    }
    if (draft := target.draft) is not None:
        found["assisted"] = lambda: _decode(model, assistant_model=_load(draft))
    return found


def _load(folder: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    model.generation_config = GenerationConfig(pad_token_id=0)  # knows no end of sequence
    return model


def _decode(model: Any, **how: Any) -> Decode:
    return functools.partial(_run, model, how)


def _run(model: Any, how: dict[str, Any], turn: Turn) -> Sequence[int]:
    ids = torch.tensor([turn.ids])
    torch.manual_seed(turn.seed)
    config = GenerationConfig(max_new_tokens=turn.max_tokens, pad_token_id=0, **_sampling(turn.temperature))
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **how)
    tokens: Sequence[int] = out[0, len(turn.ids) :].tolist()
    return tokens


def _sampling(temperature: float) -> dict[str, Any]:
    if temperature == 0.0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


if __name__ == "__main__":
    serve(modes, ["transformers", "torch"])
