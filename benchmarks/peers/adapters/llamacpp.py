"""llama.cpp through llama-cpp-python: plain and prompt lookup, in the checkpoint's dtype and in Q8_0, or in 4 bits.

The library drafts with prompt lookup only; it has no way to let a second model draft.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from gguf_files import OWN, file_of, write_files
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from peers.protocol import Decode, Modes, Target, Turn, serve

_LOOKUP_TOKENS = 10  # the library's default: faster here than the 2 that it recommends for a CPU
_MIXES = {"int4": ("Q4_K_M", "Q4_0"), "int8": ("Q8_0",)}


def export(target: Target) -> None:
    """Write the weights as they are, and let llama.cpp quantise that file."""
    from transformers import AutoModelForCausalLM

    from paceline.formats.gguf.writer import unsupported

    folder = Path(target.exports)
    model = AutoModelForCausalLM.from_pretrained(target.folder, dtype="auto")
    if (why := unsupported(model)) is not None:
        raise ValueError(why)
    write_files(model, _MIXES.get(target.dtype, ("Q8_0",)), folder, llama_cpp)
    if target.dtype in _MIXES:
        file_of(folder, OWN).unlink()


def modes(target: Target) -> Modes:
    """Each with a llama.cpp context of its own."""
    found: dict[str, Callable[[], Decode]] = {}
    for mix in _MIXES.get(target.dtype, (OWN, "Q8_0")):
        suffix = "" if mix == OWN else f", {mix}"
        found[f"plain{suffix}"] = functools.partial(_decode, target, mix, None)
        found[f"prompt lookup{suffix}"] = functools.partial(_decode, target, mix, _LOOKUP_TOKENS)
    return found


def _decode(target: Target, mix: str, lookup_tokens: int | None) -> Decode:
    lookup = LlamaPromptLookupDecoding(num_pred_tokens=lookup_tokens) if lookup_tokens is not None else None
    options: dict[str, Any] = {"n_threads": target.threads, "n_threads_batch": target.threads}
    if target.dtype == "float32":  # the default rounds keys and values to float16
        options |= {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    path = str(file_of(Path(target.exports), mix))
    model = llama_cpp.Llama(path, n_ctx=target.max_length, verbose=False, draft_model=lookup, **options)
    return functools.partial(_run, model)


def _run(model: llama_cpp.Llama, turn: Turn) -> Sequence[int]:
    model.reset()  # without it, what an earlier turn read of the same prompt would be kept
    model.set_seed(turn.seed)
    whole = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    tokens = model.generate(list(turn.ids), temp=turn.temperature, **whole)
    return list(itertools.islice(tokens, turn.max_tokens))


if __name__ == "__main__":
    serve(modes, ["llama-cpp-python"], export)
