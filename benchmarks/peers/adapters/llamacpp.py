"""llama.cpp through llama-cpp-python: plain and prompt lookup, in the checkpoint's dtype and in Q8_0.

The library drafts with prompt lookup only; it has no way to let a second model draft.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from peers.protocol import Decode, Modes, Target, Turn, serve

_LOOKUP_TOKENS = 10  # the library's default: faster here than the 2 that it recommends for a CPU
_OWN, _Q8 = "model.gguf", "q8_0.gguf"


def export(target: Target) -> None:
    """Write the weights as they are, and let llama.cpp quantise that file."""
    from transformers import AutoModelForCausalLM

    from paceline.formats.gguf.writer import unsupported, write_gguf

    folder = Path(target.exports)
    model = AutoModelForCausalLM.from_pretrained(target.folder, dtype="auto")
    if (why := unsupported(model)) is not None:
        raise ValueError(why)
    write_gguf(model, folder / _OWN)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    if llama_cpp.llama_model_quantize(bytes(folder / _OWN), bytes(folder / _Q8), ctypes.byref(parameters)) != 0:
        raise RuntimeError("llama_model_quantize failed")


def modes(target: Target) -> Modes:
    """Each with a llama.cpp context of its own."""
    return {
        "plain": lambda: _decode(target, _OWN),
        "prompt lookup": lambda: _decode(target, _OWN, LlamaPromptLookupDecoding(num_pred_tokens=_LOOKUP_TOKENS)),
        "plain, Q8_0": lambda: _decode(target, _Q8),
        "prompt lookup, Q8_0": lambda: _decode(target, _Q8, LlamaPromptLookupDecoding(num_pred_tokens=_LOOKUP_TOKENS)),
    }


def _decode(target: Target, file: str, lookup: LlamaPromptLookupDecoding | None = None) -> Decode:
    options: dict[str, Any] = {"n_threads": target.threads, "n_threads_batch": target.threads}
    if target.dtype == "float32":  # the default rounds keys and values to float16
        options |= {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    path = str(Path(target.exports) / file)
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
