"""A model's tokenizer and generation settings as Paceline uses them: no doubled BOS, several EOS ids.

Knows nothing of requests or engines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from paceline.bundled import bundled_path
from paceline.errors import ModelError, RequestError, first_line
from paceline.params import SamplingOptions


class Tokenizer:
    """Texts to ids and back."""

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        self.inner = inner

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids with the special tokens that the tokenizer adds; one BOS, also if the text brings its own."""
        if not text:
            raise RequestError("the prompt is empty; allowed: at least one character")
        ids = list(self.inner(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
        bos = self.inner.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ids, special tokens left out unless they are asked for."""
        skip = skip_special_tokens
        return str(self.inner.decode(list(ids), skip_special_tokens=skip, clean_up_tokenization_spaces=False))

    def spellings(self, word: str) -> list[tuple[int, ...]]:
        """The id sequences that spell a word at the start of a text and after a space (as vLLM's bad_words)."""
        found = []
        for text in (word, " " + word.lstrip()):
            ids = tuple(self.inner(text, add_special_tokens=False)["input_ids"])
            if ids and ids not in found:
                found.append(ids)
        return found

    def definition(self) -> str:
        """The tokenizer as the JSON of the `tokenizers` library, added tokens and all."""
        if not isinstance(self.inner, PreTrainedTokenizerFast):
            raise RequestError(
                f"a grammar needs a tokenizer of the tokenizers library, not {type(self.inner).__name__}"
            )
        return str(self.inner.backend_tokenizer.to_str())


def load_tokenizer(source: Any, target: Any, trust_remote_code: bool) -> Tokenizer | None:
    """The tokenizer of a model, a name or a folder, or a tokenizer given as an object; None if a model names none."""
    model = source if isinstance(source, PreTrainedModel) else None
    if isinstance(source, PreTrainedTokenizerBase):
        inner = source
    else:
        place = model.name_or_path if model is not None else source
        if model is not None and not os.path.isdir(place):
            return None  # a model made in memory; its prompts are token ids
        if _has_no_tokenizer(place):
            return None
        inner = _read(place, trust_remote_code)
    if len(inner) > target.vocab_size:
        raise ModelError(
            f"the tokenizer has {len(inner)} entries and the model's vocabulary {target.vocab_size}: "
            "it belongs to another model"
        )
    return Tokenizer(inner)


def sampling_defaults(generation: GenerationConfig | None) -> SamplingOptions:
    """The sampling parameters that a checkpoint's generation settings name, greedy unless it says `do_sample`."""
    found: SamplingOptions = {}
    if generation is None:
        return found
    if generation.do_sample:
        found["temperature"] = 1.0 if generation.temperature is None else float(generation.temperature)
        if generation.top_k:
            found["top_k"] = int(generation.top_k)
        if generation.top_p is not None:
            found["top_p"] = float(generation.top_p)
        if generation.min_p is not None:
            found["min_p"] = float(generation.min_p)
    if generation.repetition_penalty is not None:
        found["repetition_penalty"] = float(generation.repetition_penalty)
    return found


def _has_no_tokenizer(place: Any) -> bool:
    """Whether this is a model's folder, and nothing in it is a tokenizer's: its prompts are token ids."""
    folder = Path(place)
    if not (folder / "config.json").is_file():
        return False
    return not any(next(folder.glob(pattern), None) for pattern in _TOKENIZER_FILES)


# What transformers' tokenizers save, and those of sentencepiece and tiktoken.
_TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model", "*.tiktoken", "*.bpe")


def _read(source: Any, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(bundled_path(str(source)) or source, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(f"cannot load the tokenizer of {str(source)!r}: {first_line(error)}") from error


def eos_ids(tokenizer: Tokenizer | None, generation: GenerationConfig | None) -> frozenset[int]:
    """The end-of-sequence ids of a model's generation settings, often several, and the tokenizer's own."""
    named = getattr(generation, "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    own = tokenizer.inner.eos_token_id if tokenizer else None
    return frozenset(int(t) for t in (*several, own) if t is not None)
