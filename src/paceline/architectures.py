"""Which class of transformers a checkpoint's configuration asks for."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from paceline.errors import ModelError

_OTHER_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")


def auto_class(config: PreTrainedConfig) -> Any:
    """The auto class that makes the language model of a configuration: for text alone, or for pictures and text.

    Where both know it, what the checkpoint was saved as decides: one of both kinds holds all weights under its names.

    Raises:
        ModelError: it is no decoder with a language-model head.
    """
    name = _saved_as(config)
    if config.is_encoder_decoder:
        if type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            return AutoModelForSeq2SeqLM
        raise ModelError(f"{name} is an encoder-decoder whose source is no text; a source is read as token ids")
    if name.endswith(_OTHER_HEADS):
        raise ModelError(f"{name} has no language-model head, so there are no logits to choose tokens by")
    if type(config) not in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        is_heard = type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING  # decoders that take sound in are there too
        return AutoModelForSeq2SeqLM if is_heard else AutoModelForCausalLM
    text = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    is_text = text is not None and name == text.__name__
    return AutoModelForCausalLM if is_text else AutoModelForMultimodalLM


def is_composite(config: PreTrainedConfig) -> bool:
    """True if a checkpoint holds towers for pictures or sound beside its language model."""
    return type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING or (
        type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    )


def _saved_as(config: PreTrainedConfig) -> str:
    return str((getattr(config, "architectures", None) or [config.model_type])[0])
