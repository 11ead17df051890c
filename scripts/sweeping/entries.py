"""The entries of a sweep: the model types of transformers' mappings of models that put out text."""

from __future__ import annotations

from transformers.models.auto import modeling_auto as auto

MAPPINGS: dict[str, dict[str, str]] = {
    "causal": dict(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "image-text-to-text": dict(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
    "seq2seq": dict(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
}


def entries() -> list[str]:
    """Model types, each once, mapping by mapping."""
    return list(dict.fromkeys(name for mapping in MAPPINGS.values() for name in mapping))
