"""A prompt and what goes on behind it, as tokens: at the seam as lm-evaluation-harness cuts them (`_encode_pair`).

Spaces at the prompt's end are the continuation's. Both are read together, the prompt alone, and what is beyond the
prompt's length is the continuation: a tokenizer may join characters across the seam. An empty prompt is the token that
texts begin with.
"""

from __future__ import annotations

from paceline.errors import RequestError
from paceline.text.tokenizer import Tokenizer

Given = str | list[int]


def cut_at_seam(
    tokenizer: Tokenizer | None, prompt: Given, continuation: Given, add_special_tokens: bool = True
) -> tuple[list[int], list[int]]:
    """The token ids of a prompt, and of a continuation behind it. Token ids are taken as they are.

    Raises:
        RequestError: a text without a tokenizer, or no token for the prompt or for the continuation.
    """
    ids, behind = _cut(tokenizer, prompt, continuation, add_special_tokens)
    if not ids:
        raise RequestError("the prompt is empty; allowed: at least one token")
    if not behind:
        raise RequestError(f"the continuation {continuation!r} has no token of its own; allowed: at least one")
    return ids, behind


def _cut(
    tokenizer: Tokenizer | None, prompt: Given, continuation: Given, add_special_tokens: bool
) -> tuple[list[int], list[int]]:
    if isinstance(prompt, list) and isinstance(continuation, list):
        return prompt, continuation
    if tokenizer is None:
        raise RequestError("this model has no tokenizer; allowed: prompts and continuations of token ids")
    if prompt == "":
        return _behind_nothing(tokenizer, _ids(tokenizer, continuation, add_special_tokens=False))
    if isinstance(prompt, list):
        return prompt, _ids(tokenizer, continuation, add_special_tokens=False)
    if isinstance(continuation, list):
        return tokenizer.encode(prompt, add_special_tokens), continuation
    context = prompt.rstrip()
    if not context:
        return _behind_nothing(tokenizer, _ids(tokenizer, prompt + continuation, add_special_tokens=False))
    ids = tokenizer.encode(context, add_special_tokens)
    return ids, tokenizer.encode(prompt + continuation, add_special_tokens)[len(ids) :]


def _ids(tokenizer: Tokenizer, text: Given, add_special_tokens: bool) -> list[int]:
    if isinstance(text, str):
        return tokenizer.encode(text, add_special_tokens) if text else []
    return text


def _behind_nothing(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[int], list[int]]:
    """A continuation of an empty prompt; its first token is the prompt if it is the one that texts begin with."""
    first = prefix_id(tokenizer)
    return ([first], ids) if ids[:1] != [first] else (ids[:1], ids[1:])


def prefix_id(tokenizer: Tokenizer) -> int:
    """The token that a text begins with: the one for that, or the one for its end.

    Raises:
        RequestError: it has neither.
    """
    found = tokenizer.inner.bos_token_id
    found = tokenizer.inner.eos_token_id if found is None else found
    if found is None:
        raise RequestError("the prompt is empty, and the tokenizer has no token for that; allowed: at least one token")
    return int(found)
