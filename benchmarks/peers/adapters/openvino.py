"""OpenVINO GenAI: plain, prompt lookup, draft model; the weights are exported with optimum-intel.

In int4 and int8 all is as its users have it: what optimum-intel makes of the weights (int4: groups of 128, embedding
and head in 8 bits), inputs in int8, and keys and values in 8 bits, as the runtime has them unless told otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from peers.protocol import Decode, Modes, Target, Turn, serve

_LOOKUP = {"num_assistant_tokens": 5, "max_ngram_size": 3}  # as its samples have it
_DRAFT = {"num_assistant_tokens": 5}
_CACHE_GB = 1
_PRECISION = {"bfloat16": "bf16", "float32": "f32"}
_BITS = {"int4": 4, "int8": 8}


def export(target: Target) -> None:
    """Write target and draft model as OpenVINO's own files."""
    for name, source in (("target", target.folder), ("draft", target.draft)):
        if source is not None:
            bits = _BITS.get(target.dtype) if name == "target" else _BITS["int8"]
            _export(source, Path(target.exports) / name, bits if target.dtype in _BITS else None)


def _export(source: str, folder: Path, bits: int | None) -> None:
    """Weights in the checkpoint's dtype or in `bits`, and a tokenizer, without which no pipeline starts."""
    import openvino_tokenizers
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig, OVWeightQuantizationConfig
    from transformers import AutoTokenizer

    quantised = None if bits is None else OVConfig(quantization_config=OVWeightQuantizationConfig(bits=bits))
    main_export(source, output=folder, task="text-generation-with-past", ov_config=quantised)
    files = openvino_tokenizers.convert_tokenizer(AutoTokenizer.from_pretrained(source), with_detokenizer=True)
    for name, model in zip(("openvino_tokenizer.xml", "openvino_detokenizer.xml"), files, strict=True):
        openvino.save_model(model, folder / name)


def modes(target: Target) -> Modes:
    """A pipeline each: how it drafts is fixed when it is made."""
    folder = Path(target.exports)
    options: dict[str, Any] = {}
    if (precision := _PRECISION.get(target.dtype)) is not None:
        # Keys and values in the weights' own dtype; the default rounds them to 8 bits.
        options |= {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
    options |= {"INFERENCE_NUM_THREADS": target.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    pipeline = functools.partial(genai.LLMPipeline, folder / "target", "CPU", **options)
    found = {  # SDPA is its faster way to decode one sequence; drafting needs the other, paged one
        "plain": lambda: _decode(pipeline(ATTENTION_BACKEND="SDPA"), {}),
        "prompt lookup": lambda: _decode(pipeline(prompt_lookup=True, scheduler_config=_paged()), _LOOKUP),
    }
    if target.draft is not None:
        draft = genai.draft_model(folder / "draft", "CPU", **options)
        found["draft model"] = lambda: _decode(pipeline(draft_model=draft, scheduler_config=_paged()), _DRAFT)
    return found


def _paged() -> genai.SchedulerConfig:
    """A cache that keeps nothing of an earlier turn with the same prompt."""
    config = genai.SchedulerConfig()
    config.cache_size = _CACHE_GB
    config.enable_prefix_caching = False
    return config


def _decode(pipeline: genai.LLMPipeline, how: dict[str, Any]) -> Decode:
    return functools.partial(_run, pipeline, how)


def _run(pipeline: genai.LLMPipeline, how: dict[str, Any], turn: Turn) -> Sequence[int]:
    config = genai.GenerationConfig(max_new_tokens=turn.max_tokens, ignore_eos=True, **how)
    config.do_sample = turn.temperature > 0.0
    if config.do_sample:
        config.temperature, config.top_p, config.rng_seed = turn.temperature, 1.0, turn.seed
    ids = np.array([turn.ids], dtype=np.int64)
    inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
    tokens: Sequence[int] = pipeline.generate(inputs, config).tokens[0]
    return tokens


if __name__ == "__main__":
    serve(modes, ["openvino-genai", "openvino", "optimum-intel"], export)
