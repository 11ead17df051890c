"""The entries of a sweep: the model types of transformers' mappings of models that put out text."""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto import modeling_auto as auto

MAPPINGS: dict[str, dict[str, str]] = {
    "causal": dict(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "image-text-to-text": dict(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
    "seq2seq": dict(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
}


def class_of(model_type: str) -> Any:
    """The class that a mapping names: the one for sources first, which is the whole of a model that has an encoder."""
    whole = (auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, *reversed(MAPPINGS.values()))
    named = [mapping[model_type] for mapping in whole if model_type in mapping]
    return getattr(transformers, named[0])


def entries() -> list[str]:
    """Model types, each once, mapping by mapping."""
    return list(dict.fromkeys(name for mapping in MAPPINGS.values() for name in mapping))
