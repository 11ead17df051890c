"""One model of each family that the sweep counts, tiny and random, in a folder with a tokenizer of bytes.

What a user would give to `paceline certify`: sizes are those of the sweep. The tokenizer has a token for each byte, so
that texts are several pages long.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from sweeping.entries import class_of
from sweeping.shrink import FIRST_SPECIAL, shrunk

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from models.families import of_config, redraw

START, END = FIRST_SPECIAL - 2, FIRST_SPECIAL - 1
_TRAINED = 64  # positions that the long ones were made for: a tenth of those that they have
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 10.0, "original_max_position_embeddings": _TRAINED}
_LLAMA3 = {**_YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@dataclass(frozen=True)
class Family:
    """A family of the list in docs/coverage.md, and the model that stands for it."""

    what: str
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    has_adapter: bool = False

    @property
    def name(self) -> str:
        """How it is asked for."""
        kind = self.settings.get("rope_parameters", {}).get("rope_type")
        return "-".join(filter(None, (self.model_type, kind, "lora" if self.has_adapter else None)))

    def write(self, folder: Path) -> Path:
        """Write the model below `folder`; where to load it from."""
        model = self._model()
        base = folder / self.name
        model.save_pretrained(base)
        tokenizer_of_bytes().save_pretrained(base)
        return write_adapter(folder / "adapter", base, model) if self.has_adapter else base

    def _model(self) -> PreTrainedModel:
        config = shrunk(self.model_type, dict(self.settings))
        if not config.is_encoder_decoder:
            model = of_config(config)
            model.generation_config.eos_token_id = END
            return model
        model = class_of(self.model_type)._from_config(config, attn_implementation="eager")
        redraw(model)
        own = model.generation_config
        own.forced_bos_token_id = own.forced_eos_token_id = None
        own.decoder_start_token_id, own.eos_token_id = START, END
        return model.eval()


FAMILIES = (
    Family("state", "qwen3_next"),
    Family("state", "mamba2"),
    Family("sinks", "gpt_oss"),
    Family("composite", "qwen2_5_vl"),
    Family("sparse attention", "deepseek_v32"),
    Family("other routers", "llama4_text"),
    Family("private attention", "bloom"),
    Family("private attention", "diffllama"),
    Family("encoder-decoder", "t5"),
    Family("encoder-decoder", "marian"),
    Family("encoder-decoder", "bart"),
    Family("long contexts", "llama", {"rope_parameters": _YARN}),
    Family("long contexts", "llama", {"rope_parameters": _LLAMA3}),
    Family("adapters", "llama", has_adapter=True),
)


def tokenizer_of_bytes() -> PreTrainedTokenizerFast:
    """A token for each byte, and a last one that ends a text."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    fillers = {f"<{number}>": number for number in range(len(alphabet), END)}
    tokenizer = Tokenizer(models.BPE(vocab={**alphabet, **fillers, "<end>": END}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", clean_up_tokenization_spaces=False)


def write_adapter(folder: Path, base: Path, model: PreTrainedModel) -> Path:
    """A folder as PEFT writes it: a random LoRA on the first queries and the last feed-forward layer."""
    folder.mkdir()
    says = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 3, "lora_alpha": 5}
    last = len(model.model.layers) - 1
    tensors, draw = {}, torch.Generator().manual_seed(3)
    for name in ("model.layers.0.self_attn.q_proj", f"model.layers.{last}.mlp.down_proj"):
        rows, columns = model.get_submodule(name).weight.shape
        for letter, shape in (("A", (3, columns)), ("B", (rows, 3))):
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = torch.randn(shape, generator=draw) * 0.1
    (folder / "adapter_config.json").write_text(json.dumps(says), "utf-8")
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
