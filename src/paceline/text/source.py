"""What an encoder-decoder reads and how its output begins: source texts, languages, forced first tokens.

As transformers' `generate` has it: the decoder's start token, then the token that the generation settings force to be
the first, or that of the language asked for. Knows nothing of requests or engines.
"""

from __future__ import annotations

import threading
from typing import Any

from paceline.errors import RequestError
from paceline.text.tokenizer import Tokenizer

_languages = threading.Lock()  # which language a tokenizer reads or writes is its own state

# What `generate` would follow besides, beyond choosing the likeliest token of each step.
_NOT_FOLLOWED = {
    "num_beams": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "begin_suppress_tokens": None,
    "encoder_repetition_penalty": 1.0,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
}


def source_ids(tokenizer: Tokenizer, text: str, language: str | None, add_special_tokens: bool) -> list[int]:
    """The token ids of a source text, in a language that the tokenizer knows or its own."""
    if language is None:
        with _languages:
            return tokenizer.encode(text, add_special_tokens)
    inner = tokenizer.inner
    _token_of(tokenizer, "source_language", language)
    with _languages:
        before = inner.src_lang
        try:
            inner.src_lang = language
            return tokenizer.encode(text, add_special_tokens)
        finally:
            inner.src_lang = before


def expected_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of an expected output, its end included."""
    with _languages:
        ids = list(tokenizer.inner(text_target=text, add_special_tokens=False, verbose=False)["input_ids"])
    end = tokenizer.inner.eos_token_id
    return ids if end is None else [*ids, end]


def output_start(generation: Any, tokenizer: Tokenizer | None, language: str | None) -> list[int]:
    """The token ids that every output begins with.

    Raises:
        RequestError: there are none, or the language is not known.
    """
    start = getattr(generation, "decoder_start_token_id", None)
    start = getattr(generation, "bos_token_id", None) if start is None else start
    if not isinstance(start, int):
        raise RequestError(f"decoder_start_token_id of the generation settings is {start!r}; allowed: one token id")
    if language is not None:
        if tokenizer is None:
            raise RequestError("target_language is given, and this model has no tokenizer that would know it")
        return [start, _token_of(tokenizer, "target_language", language)]
    forced = getattr(generation, "forced_bos_token_id", None)
    return [start] if forced is None else [start, int(forced)]


def forbidden_ids(generation: Any) -> tuple[tuple[int, ...], ...]:
    """The sequences of tokens that the generation settings forbid in an output."""
    words = [tuple(int(t) for t in word) for word in getattr(generation, "bad_words_ids", None) or ()]
    return (*words, *((int(t),) for t in getattr(generation, "suppress_tokens", None) or ()))


def not_followed(generation: Any) -> str:
    """The generation settings that `generate` would follow and a decoding token by token does not, as text."""
    found = {name: getattr(generation, name, None) for name in _NOT_FOLLOWED}
    told = [f"{name}={value}" for name, value in found.items() if value not in (None, _NOT_FOLLOWED[name])]
    return f"not followed of its generation settings: {', '.join(told)}" if told else ""


def _languages_of(inner: Any) -> list[str]:
    named = {str(getattr(inner, f"{name}_token", None)) for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
    return sorted(getattr(inner, "lang_code_to_token", None) or {*inner.all_special_tokens} - named)


def _token_of(tokenizer: Tokenizer, name: str, language: str) -> int:
    inner = tokenizer.inner
    if hasattr(inner, "get_lang_id") and language in getattr(inner, "lang_code_to_token", {}):
        return int(inner.get_lang_id(language))  # M2M, whose names of languages are no tokens
    token = inner.convert_tokens_to_ids(language) if hasattr(inner, "src_lang") else None
    if token is None or token == inner.unk_token_id:
        known = _languages_of(inner)[:3] if hasattr(inner, "src_lang") else []
        allowed = f"one that its tokenizer knows, such as {', '.join(known)}" if known else "none with this model"
        raise RequestError(f"{name} is {language!r}; allowed: {allowed}")
    return int(token)
