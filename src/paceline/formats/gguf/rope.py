"""Rotary embeddings as a file's metadata describes them, as transformers' `rope_parameters`."""

from __future__ import annotations

from typing import Any

from paceline.errors import ModelError
from paceline.formats.gguf.metadata import Metadata
from paceline.formats.gguf.names import PHI3_FACTOR_TENSORS
from paceline.formats.gguf.reader import Reader

_YARN = {
    "yarn_attn_factor": "attention_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}


def rope_parameters(metadata: Metadata, architecture: str, context: int) -> dict[str, Any]:
    """Plain, linear or yarn; divisors that lie in a tensor (`rope_freqs`) are not part of it.

    Raises:
        ModelError: a scaling that is none of these.
    """
    theta = metadata.number(f"{architecture}.rope.freq_base", 10_000.0)
    if theta <= 1.0:
        raise ModelError(f"{metadata.name}: {architecture}.rope.freq_base is {theta}; allowed: more than 1")
    key = f"{architecture}.rope.scaling"
    factor = metadata.number(f"{key}.factor", metadata.number(f"{architecture}.rope.scale_linear", 0.0))
    kind = metadata.text(f"{key}.type", "linear")
    if kind in ("none", "longrope") or (kind == "linear" and factor in (0.0, 1.0)):
        return {"rope_type": "default", "rope_theta": theta}
    if kind not in ("linear", "yarn"):
        raise ModelError(f"{metadata.name}: {key}.type is {kind!r}; allowed: none, linear, yarn, longrope")
    if factor < 1.0:
        raise ModelError(f"{metadata.name}: {key}.factor is {factor}; allowed: 1 or more")
    found = {"rope_type": kind, "rope_theta": theta, "factor": factor}
    if kind == "yarn":
        found["original_max_position_embeddings"] = metadata.integer(f"{key}.original_context_length", context, 1)
        found |= {word: metadata.number(f"{key}.{name}") for name, word in _YARN.items() if f"{key}.{name}" in metadata}
    return found


def phi3_factors(reader: Reader) -> dict[str, Any]:
    """The factors of phi3's long contexts, (D / 2,) each, as numbers; empty where a file has none."""
    found = {word: reader.floats(name).tolist() for name, word in PHI3_FACTOR_TENSORS.items() if name in reader}
    if len(found) == 1:
        raise ModelError(
            f"{reader.metadata.name} has {next(iter(found))}s alone; allowed: long and short ones, or none"
        )
    return {"rope_type": "longrope", **found} if found else {}
