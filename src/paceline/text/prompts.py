"""Prompts as people hold them, to the two forms that are decoded: a text, or a list of token ids.

Arrays and tensors are known by their `tolist`; no array library is imported. Knows nothing of models: whether
an id is in the vocabulary is asked elsewhere.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Set
from numbers import Number
from typing import Any, NoReturn, SupportsIndex

from paceline.checks import index_of, plain
from paceline.errors import RequestError
from paceline.text.pictures import Pictured, open_pictures

# One prompt: a text, token ids, or a mapping that holds either, as vLLM's and those of transformers' tokenizers do, and
# may hold pictures beside a text.
Prompt = str | Iterable[SupportsIndex] | Mapping[str, Any]
Content = str | list[int] | Pictured

_ALLOWED = "a string, token ids, or a mapping with 'prompt', 'prompt_token_ids' or 'input_ids'; or several of these"
_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set, type)  # their items are not token ids in an order
_KEYS = {"prompt", "prompt_token_ids", "input_ids", "attention_mask", "images", "multi_modal_data"}
_KEYS_BESIDE = {"token_type_ids", "special_tokens_mask", "offset_mapping", "overflow_to_sample_mapping", "length"}


def as_prompts(value: object, name: str = "prompt") -> tuple[list[Content], bool]:
    """The prompts in a value, and whether it is a batch, which is answered with a list.

    A text, a mapping of one prompt, and integers in an iterable or an array of one dimension are one prompt. All else
    that has items is a batch: prompts in an iterable, an array of two dimensions (of one row too), and what a
    tokenizer returns for several texts or as tensors. Tokens that an `attention_mask` calls padding are left out. A
    list without items is an empty batch.

    Args:
        value: what a caller gave.
        name: what messages call it.

    Raises:
        RequestError: something in it is no prompt.
    """
    content, is_batch = _opened(value, name)
    if is_batch and not isinstance(content, Pictured):
        return [as_content(item, f"{name}[{i}]") for i, item in enumerate(content)], True
    return [_read(content, name)], False


def as_prompt(value: object, name: str = "prompt") -> str | list[int]:
    """The one prompt in a value, which may be a batch of one. A list without items has no tokens.

    Raises:
        RequestError: it is no prompt, or a batch of several, or has pictures.
    """
    content = as_content(value, name)
    if isinstance(content, Pictured):
        raise RequestError(f"{name} has pictures; allowed here: text or token ids alone")
    return content


def as_content(value: object, name: str = "prompt") -> Content:
    """The same, of a prompt that may have pictures."""
    content, is_batch = _opened(value, name)
    if isinstance(content, Pictured):
        return content
    if is_batch and len(content) == 1:
        name = f"{name}[0]"
        content, is_batch = _opened(content[0], name)
    if isinstance(content, Pictured):
        return content
    if is_batch and content:
        raise RequestError(f"{name} is a batch of {len(content)}; allowed here: one prompt")
    return _read(content, name)


def _opened(value: object, name: str) -> tuple[str | list[Any] | Pictured, bool]:
    """The text or the items that a value holds, and whether the items are prompts themselves."""
    if isinstance(value, Pictured):
        return value, False
    if isinstance(value, Mapping):
        return _opened_mapping(value, name)
    content = plain(value)
    if isinstance(content, str):
        return content, False
    items = _items(content, name, _ALLOWED)
    return items, _are_prompts(items) if items else getattr(value, "ndim", 2) != 1


def _opened_mapping(value: Mapping[Any, Any], name: str) -> tuple[str | list[Any] | Pictured, bool]:
    given = {key for key, entry in value.items() if entry is not None}
    if not given & {"prompt", "prompt_token_ids", "input_ids"}:
        _refuse(name, value, _ALLOWED + ("; messages go to `chat`" if "role" in given else ""))
    if unread := given - _KEYS - _KEYS_BESIDE:
        unread_names = ", ".join(sorted(map(str, unread)))
        raise RequestError(
            f"{name} has {unread_names}, which Paceline does not read; allowed: {', '.join(sorted(_KEYS))}"
        )
    if given & {"images", "multi_modal_data"}:
        return _opened_pictures(value, name), False
    if "prompt_token_ids" in given:
        return _items(value["prompt_token_ids"], f"{name}['prompt_token_ids']", "token ids"), False
    if "input_ids" in given:
        return _opened_encoding(value, name)
    text = plain(value["prompt"])
    return text if isinstance(text, str) else _refuse(f"{name}['prompt']", text, "a string"), False


def _opened_pictures(value: Mapping[Any, Any], name: str) -> Pictured:
    """A text and its pictures: beside it, or as vLLM's `multi_modal_data`."""
    data = value.get("multi_modal_data") or {}
    if not isinstance(data, Mapping) or set(data) - {"image"}:
        _refuse(f"{name}['multi_modal_data']", data, "a mapping with 'image'")
    found, text = value.get("images") or data.get("image"), plain(value.get("prompt"))
    if not isinstance(text, str):
        _refuse(f"{name}['prompt']", text, "a string beside pictures, with the model's placeholders for them")
    return Pictured(text, open_pictures(found if isinstance(found, list | tuple) else [found], f"{name}['images']"))


def _opened_encoding(value: Mapping[Any, Any], name: str) -> tuple[list[Any], bool]:
    """What a tokenizer returned: `input_ids` of one text or of several, without the padding."""
    ids = _items(value["input_ids"], f"{name}['input_ids']", "token ids")
    mask, mask_name = value.get("attention_mask"), f"{name}['attention_mask']"
    if not ids or not _are_prompts(ids):
        return _unpadded(ids, mask, mask_name), False
    rows = [_items(row, f"{name}['input_ids'][{i}]", "token ids") for i, row in enumerate(ids)]
    masks = [None] * len(rows) if mask is None else _entries(mask, len(rows), mask_name)
    pairs = enumerate(zip(rows, masks, strict=True))
    return [_unpadded(row, own, f"{mask_name}[{i}]") for i, (row, own) in pairs], True


def _unpadded(ids: list[Any], mask: object, name: str) -> list[Any]:
    if mask is None:
        return ids
    marks = [plain(mark) for mark in _entries(mask, len(ids), name)]
    kept = [i for i, mark in enumerate(marks) if mark]
    has_gaps = bool(kept) and kept[-1] - kept[0] >= len(kept)
    if has_gaps or any(mark not in (0, 1) for mark in marks):
        _refuse(name, mask, "ones, with zeros for padding before or after them")
    return [ids[i] for i in kept]


def _entries(mask: object, count: int, name: str) -> list[Any]:
    allowed = f"one entry for each of {count}"
    entries = _items(mask, name, allowed)
    return entries if len(entries) == count else _refuse(name, mask, allowed)


def _items(value: object, name: str, allowed: str) -> list[Any]:
    content = plain(value)
    if isinstance(content, _NO_LISTS) or not isinstance(content, Iterable):
        _refuse(name, value, allowed)
    return list(content)


def _are_prompts(items: list[Any]) -> bool:
    first = plain(items[0])
    return not isinstance(first, Number) and not hasattr(first, "__index__")


def _read(content: str | list[Any] | Pictured, name: str) -> Content:
    if isinstance(content, Pictured):
        return content
    if isinstance(content, str):
        return _text(content, name)
    return [_token_id(token, name, i) for i, token in enumerate(content)]


def _text(content: str, name: str) -> str:
    text = str.__str__(content)  # a subclass may print itself as something else
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(name, text, "Unicode text")
    return text


def _token_id(token: object, name: str, place: int) -> int:
    number = index_of(token)
    return number if number is not None else _refuse(f"{name}[{place}]", token, "a token id, which is an integer")


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise RequestError(f"{name} is {reprlib.repr(plain(value))}; allowed: {allowed}")
