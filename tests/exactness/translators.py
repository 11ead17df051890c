"""Tiny random encoder-decoders with weights large enough that every bit matters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

import paceline
from exactness.decoding import Job, PlainRuns
from exactness.subjects import Snapshot
from paceline.native.library import VARIABLE, library

VOCAB = 131
PAD, START, END = 1, 2, 3
_SHAPE = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 72,
    "decoder_ffn_dim": 56,
    "max_position_embeddings": 320,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": START,
    "forced_eos_token_id": None,
    "tie_word_embeddings": False,
}
_T5 = {"num_layers": 2, "num_decoder_layers": 3, "num_heads": 3, "d_kv": 16, "d_ff": 72}
_GEMMA = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 320,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": START,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "marian": ("MarianMTModel", {}),
    "marian-apart": ("MarianMTModel", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 117}),
    "bart": ("BartForConditionalGeneration", {"scale_embedding": True}),
    "mbart": ("MBartForConditionalGeneration", {}),
    "m2m": ("M2M100ForConditionalGeneration", {"scale_embedding": True}),
    "t5": ("T5ForConditionalGeneration", _T5),
    "flan-t5": ("T5ForConditionalGeneration", {**_T5, "feed_forward_proj": "gated-gelu", "d_kv": 20}),
    "mt5": ("MT5ForConditionalGeneration", {**_T5, "relative_attention_max_distance": 31}),
    "umt5": ("UMT5ForConditionalGeneration", _T5),
    "t5gemma": ("T5GemmaForConditionalGeneration", {"encoder": _GEMMA, "decoder": _GEMMA}),
    "pegasus-x": ("PegasusXForConditionalGeneration", {}),
    "led": ("LEDForConditionalGeneration", {"max_encoder_position_embeddings": 320, "attention_window": 16}),
    "mvp": ("MvpForConditionalGeneration", {}),
    "bert-to-bert": ("EncoderDecoderModel", {}),
    "blenderbot": ("BlenderbotForConditionalGeneration", {}),
    "pegasus": ("PegasusForConditionalGeneration", {}),
}


def build(kind: str, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A random model whose source and positions weigh as much as its own words."""
    name, own = KINDS[kind]
    cls = getattr(transformers, name)
    torch.manual_seed(5)
    if name == "EncoderDecoderModel":
        return redrawn(pair_of_berts(cls)).to(dtype).eval()
    settings = {**_SHAPE, **own, **changes}
    if "decoder" in own:
        part = transformers.T5GemmaModuleConfig
        settings = {**own, "encoder": part(**own["encoder"]), "decoder": part(**own["decoder"]), "vocab_size": VOCAB}
        settings |= {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": START}
    return redrawn(cls(cls.config_class(**settings))).to(dtype).eval()


def pair_of_berts(cls: Any) -> PreTrainedModel:
    """An encoder and a decoder that stand alone too."""
    part = {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    part |= {"intermediate_size": 64, "max_position_embeddings": 320, "pad_token_id": PAD}
    encoder = transformers.BertModel(transformers.BertConfig(**part), add_pooling_layer=False)
    config = transformers.BertConfig(**part, is_decoder=True, add_cross_attention=True)
    model = cls(encoder=encoder, decoder=transformers.BertLMHeadModel(config))
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = START, PAD, END
    return model  # type: ignore[no-any-return]


def redrawn(model: PreTrainedModel) -> PreTrainedModel:
    """A model with other weights, the scores of T5 as small as others'."""
    with torch.no_grad():
        for label, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 0.3 if parameter.ndim > 1 else 0.2
                scale *= 0.25 if label.endswith(".q.weight") else 1.0  # T5 does not divide its scores
                parameter.copy_(torch.randn_like(parameter) * scale + ("orm" in label and label.endswith("weight")))
    return model


def source(length: int, seed: int) -> tuple[int, ...]:
    """A random source: no special token in it."""
    return tuple(int(t) for t in np.random.default_rng([length, seed]).integers(END + 1, 110, length))


def job(length: int, seed: int, max_tokens: int = 15, prompt: int = 1, **options: Any) -> Job:
    """A request with a random source of `length` tokens, whose output begins with a prompt of so many."""
    start = (START, *source(prompt - 1, seed + 1000))
    return Job(start, {"max_tokens": max_tokens, **options}, seed, source(length, seed))


class Translator:
    """A model, loaded through the front door."""

    def __init__(self, kind: str, cache_tokens: int = 4096, dtype: torch.dtype = torch.float32) -> None:
        self.model = build(kind, dtype)
        self.before = Snapshot.of(self.model)
        with patch("paceline.model.proving._PROBE_SECONDS", 60):
            self.llm = paceline.load(self.model, cache_tokens=cache_tokens)
        self.target = self.llm.target
        self.decoder = self.target.decoder
        self.pool = self.decoder.pool
        self.plain = PlainRuns(self.target)

    def own_logits(self, job: Job, output: list[int]) -> np.ndarray:
        """(T, V) logits behind the tokens of an output, by the caller's model and its own eager attention."""
        inputs = torch.tensor([job.source]), torch.tensor([[*job.prompt, *output[:-1]]])
        with torch.inference_mode():
            logits = self.model(input_ids=inputs[0], decoder_input_ids=inputs[1]).logits[0]
        return logits[len(job.prompt) - 1 :].float().numpy()


@contextmanager
def loaded(setting: str, kind: str, **changes: Any) -> Iterator[Translator]:
    """A model loaded with the native kernels, or without if the setting is "0"."""
    with patch.dict("os.environ", {VARIABLE: setting}):
        library.cache_clear()
        one = Translator(kind, **changes)
    library.cache_clear()
    yield one
    one.llm.close()
