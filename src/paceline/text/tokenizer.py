"""A model's tokenizer and generation settings as Paceline uses them: no doubled BOS, several EOS ids.

Knows nothing of requests or engines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from paceline.adapters import find_adapter
from paceline.bundled import bundled_path
from paceline.errors import ModelError, RequestError, first_line
from paceline.params import SamplingOptions
from paceline.text.stream import INCOMPLETE

_CONTEXT = 12  # ids that decide how text behind them is cut, and their own text's beginning shown


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

    def num_whole(self, ids: Sequence[int]) -> int:
        """How many of the first ids make up whole characters; all of them but for a few at the end."""
        end = len(ids)
        while end and self._shown(ids[max(end - _CONTEXT, 0) : end]).endswith(INCOMPLETE):
            end -= 1
        return end

    def texts_behind(self, ids: Sequence[int], start: int) -> list[str]:
        """After each of the ids from `start` on, the text from there to it: its leading space needs those before."""
        near, first = ids[max(start - _CONTEXT, 0) :], min(start, _CONTEXT)
        skipped = len(self._shown(near[:first]))
        return [self._shown(near[:end])[skipped:] for end in range(first + 1, len(near) + 1)]

    def text_behind(self, ids: Sequence[int], start: int) -> str:
        """The text of the ids from `start` on, as it stands behind those before."""
        near, first = ids[max(start - _CONTEXT, 0) :], min(start, _CONTEXT)
        return self._shown(near)[len(self._shown(near[:first])) :]

    def beginning_with(self, text: str) -> list[int]:
        """The tokens whose text, as it stands behind a letter, begins with `text`."""
        return [token for token, own in enumerate(self._texts) if own.startswith(text)]

    @cached_property
    def _texts(self) -> list[str]:
        """Each token's text behind a letter. Of the largest vocabularies this takes a few seconds, once."""
        before = self._cut("a")[-1:]
        return [self.text_behind([*before, token], len(before)) for token in range(len(self.inner))]

    def continued(self, ids: Sequence[int], text: str) -> list[int] | None:
        """The ids that the tokenizer gives `text` behind `ids`, as far as these make up whole characters.

        None if a token of both texts together lies across their border, or spells what `ids` has begun otherwise.
        """
        near = ids[-_CONTEXT:]
        whole = self.num_whole(near)
        before, begun = self._shown(near[:whole]), list(near[whole:])
        both = self._cut(before + text)
        borders = sorted(range(len(both) + 1), key=lambda border: abs(border - whole))
        found = next((border for border in borders if self._shown(both[:border]) == before), None)
        if found is None or both[found : found + len(begun)] != begun:
            return None
        return both[found + len(begun) :]

    def _shown(self, ids: Sequence[int]) -> str:
        """As `decode`, at a fifth of its price where that can be had."""
        if isinstance(self.inner, PreTrainedTokenizerFast):
            return str(self.inner.backend_tokenizer.decode(list(ids), skip_special_tokens=True))
        return self.decode(ids)

    def _cut(self, text: str) -> list[int]:
        if isinstance(self.inner, PreTrainedTokenizerFast):
            return list(self.inner.backend_tokenizer.encode(text, add_special_tokens=False).ids)
        return list(self.inner(text, add_special_tokens=False, verbose=False)["input_ids"])

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
        place = model.name_or_path if model is not None else _of_adapter(source)
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


def _of_adapter(source: Any) -> Any:
    """Where the tokenizer of an adapter lies: with it, or with its base; any other source is its own place."""
    adapter = find_adapter(source)
    if adapter is None:
        return source
    return adapter.folder if adapter.has_tokenizer else adapter.base


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
