"""The ids of a file's special tokens, and all tokens after which a text ends."""

from __future__ import annotations

from typing import Any, Final

from paceline.formats.gguf.metadata import Metadata

CONTROL: Final = 3  # a token's type
_IDS = {"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# A file states one end token, while chats end with another: llama.cpp knows these by their text, and so do we.
_END_TEXTS = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
}


def special_ids(metadata: Metadata, vocab_size: int) -> dict[str, Any]:
    """The fields of a configuration; `eos_token_id` is a list where a file has several end tokens.

    Raises:
        ModelError: an id beyond the vocabulary.
    """
    found: dict[str, Any] = {field: token_id(metadata, key, vocab_size) for field, key in _IDS.items()}
    ends = end_ids(metadata, vocab_size)
    return {**found, "eos_token_id": ends if len(ends) > 1 else ends[0] if ends else None}


def token_id(metadata: Metadata, key: str, vocab_size: int) -> int | None:
    """The id that a key names; None if there is none."""
    name = f"tokenizer.ggml.{key}"
    return metadata.integer(name, None, 0, vocab_size - 1) if name in metadata else None


def end_ids(metadata: Metadata, vocab_size: int) -> list[int]:
    """The end tokens, the file's own first: by key, then control tokens by text."""
    named = [token_id(metadata, key, vocab_size) for key in _END_KEYS]
    found = [index for index in named if index is not None]
    if "tokenizer.ggml.tokens" in metadata and "tokenizer.ggml.token_type" in metadata:
        types = metadata.integers("tokenizer.ggml.token_type")
        tokens = metadata.texts("tokenizer.ggml.tokens")
        pairs = enumerate(zip(tokens, types, strict=False))
        found += [i for i, (token, kind) in pairs if kind == CONTROL and token in _END_TEXTS and i < vocab_size]
    return list(dict.fromkeys(found))
