"""What a call asks for that is left to transformers, as far as its arguments and settings tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from paceline.accelerating.derived import CACHES
from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.remembered import Remembered

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

# What a forward may be given beside the settings: the rest of it, pictures say, is not known here.
_KNOWN_INPUTS = {"input_ids", "attention_mask", "use_cache", "logits_to_keep", "return_dict"}
_KNOWN_OF_PAIRS = {"decoder_input_ids", "decoder_attention_mask"}
_MODES = {  # of transformers' GenerationMode, the setting that asks for each
    "contrastive_search": "penalty_alpha",
    "dola_generation": "dola_layers",
    "group_beam_search": "num_beam_groups",
    "constrained_beam_search": "constraints",
}
_DONE_HERE = ("greedy_search", "sample", "assisted_generation")


def check_arguments(model: PreTrainedModel, given: Mapping[str, Any]) -> None:
    """Refuse what `generate` was given beside settings and inputs.

    Raises:
        HandOver: an argument that is left to transformers.
    """
    if model.training:
        raise HandOver("a model in training mode", "its dropout draws; call model.eval() before")
    if given.get("custom_generate") is not None:
        raise HandOver("custom_generate", "it is a way of decoding of its own")
    if given.get("synced_gpus"):
        raise HandOver("synced_gpus", "Paceline decodes in one process")


def check_inputs(model: PreTrainedModel, inputs: Mapping[str, Any], remembered: Remembered) -> None:
    """Refuse what would go to the model's forward.

    Raises:
        HandOver: an input that Paceline does not read, or a cache that it has not returned.
    """
    is_pair = model.config.is_encoder_decoder
    known = _KNOWN_INPUTS | (_KNOWN_OF_PAIRS if is_pair else {"inputs_embeds"})
    for name, value in inputs.items():
        if name in CACHES and value is not None:
            if is_pair or not remembered.is_known(value):
                raise HandOver(name, "Paceline goes on behind caches that it has returned, as they were, alone")
        elif value is not None and name not in known and not name.startswith("output_"):
            raise HandOver(name, "Paceline reads token ids alone")


def check_settings(config: GenerationConfig, assistant: PreTrainedModel | None) -> None:
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


def check_attentions(model: PreTrainedModel, config: GenerationConfig, end: int) -> None:
    """Those of a text of `end` tokens are cut as each step had them: where all keys are kept, and no others.

    Raises:
        HandOver: they are asked for, and are others.
    """
    if not (config.return_dict_in_generate and config.output_attentions):
        return
    text = model.config.get_text_config(decoder=True)
    has_others = not {*(getattr(text, "layer_types", None) or ())} <= {"full_attention", "sliding_attention"}
    is_longer = end > (getattr(text, "sliding_window", None) or end)
    if has_others or is_longer or config.cache_implementation is not None:
        raise HandOver("output_attentions", "a cache of fixed length or of a window has others")
