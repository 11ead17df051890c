"""Texts in which the marks of an answer's parts can be found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from paceline.text.stream import Decode
from paceline.text.tokenizer import Tokenizer


class Marked:
    """Texts of tokens with those special tokens that a response template looks for, and no others."""

    def __init__(self, tokenizer: Tokenizer, response_template: Mapping[str, Any]) -> None:
        self._inner = tokenizer.inner
        self.decode_all: Decode = partial(tokenizer.decode, skip_special_tokens=False)
        sought = json.dumps(response_template, ensure_ascii=False).replace("\\", "")
        special = zip(self._inner.all_special_ids, self._inner.all_special_tokens, strict=True)
        self._dropped = frozenset(int(token_id) for token_id, text in special if text not in sought)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        kept = [token_id for token_id in ids if token_id not in self._dropped]
        return str(self._inner.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
