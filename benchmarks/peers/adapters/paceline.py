"""Paceline through the same pipe, with the project's own interpreter.

`auto` is what `drafters="auto"` takes, and the draft model that the peers have too; it runs twice, for the noise.
Beside a quantised target the draft model is there in 8 bits as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import paceline
from paceline.drafters import automatic
from paceline.engine.request import Environment, fresh_tenant
from paceline.formats.gguf.writer import types_of_mix, write_gguf
from peers.protocol import QUANTISED, Decode, Modes, Target, Turn, serve

_DRAFT = "draft.gguf"


def export(target: Target) -> None:
    """Write the draft model of a quantised target in 8 bits."""
    if target.draft is not None and target.dtype in QUANTISED:
        model = AutoModelForCausalLM.from_pretrained(target.draft, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(target.draft)
        write_gguf(model, Path(target.exports) / _DRAFT, tokenizer, types_of_mix(model, "int8"))


def modes(target: Target) -> Modes:
    """Plain decoding, and drafting with and without the draft model."""
    torch.set_num_threads(target.threads)
    dtype = target.dtype if target.dtype in QUANTISED else "auto"
    llm = paceline.load(target.folder, drafters="none", dtype=dtype)

    def decode(drafters: Sequence[str]) -> Decode:
        def run(turn: Turn) -> Sequence[int]:
            # A tenant of its own, or what an earlier turn answered to this very prompt would draft for it.
            output = llm.generate(
                list(turn.ids),
                drafters=drafters,
                tenant=fresh_tenant(),
                max_tokens=turn.max_tokens,
                temperature=turn.temperature,
                seed=turn.seed,
                ignore_eos=True,
            )
            tokens: Sequence[int] = output.token_ids
            return tokens

        return run

    without = _drafters(llm, None)
    found = {"auto": lambda: decode(_drafters(llm, target.draft)), "none": lambda: decode([])}
    if target.draft is not None:
        found["auto without draft model"] = lambda: decode(without)
        if target.dtype in QUANTISED:
            small = str(Path(target.exports) / _DRAFT)
            found["auto, draft model in int8"] = lambda: decode(_drafters(llm, small))
    return found | {"auto again": lambda: decode(_drafters(llm, target.draft))}


def _drafters(llm: paceline.LLM, draft: str | None) -> list[str]:
    """What "auto" would take, were this draft model the known one."""
    names = automatic(Environment(None, llm.target.vocab_size, "cpu", draft))
    return [f"model:path={draft}" if name == "model" else name for name in names]


if __name__ == "__main__":
    serve(modes, ["torch", "transformers"], export)
