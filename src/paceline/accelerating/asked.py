"""What a call asks for that is left to transformers, as far as its arguments and settings tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from paceline.accelerating.handing_over import HandOver

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

# What a forward may be given beside the settings: the rest of it, pictures say, is not known here.
_KNOWN_INPUTS = {"input_ids", "attention_mask", "use_cache", "logits_to_keep", "return_dict"}
_KNOWN_OF_DECODERS = {"decoder_input_ids", "decoder_attention_mask"}
_MODES = {  # of transformers' GenerationMode, the setting that asks for each
    "contrastive_search": "penalty_alpha",
    "dola_generation": "dola_layers",
    "group_beam_search": "num_beam_groups",
    "constrained_beam_search": "constraints",
}
_DONE_HERE = ("greedy_search", "sample", "assisted_generation")


def check_arguments(model: PreTrainedModel, given: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Refuse what `generate` was given beside settings; `inputs` are what goes to the model's forward.

    Raises:
        HandOver: an argument that is left to transformers.
    """
    if model.training:
        raise HandOver("a model in training mode", "its dropout draws; call model.eval() before")
    if given.get("custom_generate") is not None:
        raise HandOver("custom_generate", "it is a way of decoding of its own")
    if given.get("synced_gpus"):
        raise HandOver("synced_gpus", "Paceline decodes in one process")
    known = _KNOWN_INPUTS | (_KNOWN_OF_DECODERS if model.config.is_encoder_decoder else set())
    for name, value in inputs.items():
        if value is not None and name not in known and not name.startswith("output_"):
            raise HandOver(name, "Paceline reads token ids alone")


def check_settings(model: PreTrainedModel, config: GenerationConfig, assistant: PreTrainedModel | None) -> None:
    """Refuse settings.

    Raises:
        HandOver: a setting that is left to transformers.
    """
    mode = config.get_generation_mode(assistant)
    mode = str(getattr(mode, "value", mode))
    if mode not in _DONE_HERE:
        raise HandOver(_MODES.get(mode, "num_beams"), f"Paceline goes on with one text at a time, and this is {mode}")
    if config.token_healing:
        raise HandOver("token_healing", "it changes the prompt")
    if config.cache_implementation in ("paged", "quantized"):
        raise HandOver(f"cache_implementation={config.cache_implementation!r}", "Paceline has a cache of its own")
    if config.return_dict_in_generate and config.output_attentions:
        _check_attentions(model, config)


def _check_attentions(model: PreTrainedModel, config: GenerationConfig) -> None:
    """Those of a finished text are cut as each step had them: where all keys are kept, and no others."""
    text = model.config.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None) or ()
    has_windows = getattr(text, "sliding_window", None) is not None or any(k != "full_attention" for k in kinds)
    if has_windows or config.cache_implementation is not None:
        raise HandOver("output_attentions", "a cache of fixed length or of a window has others")
