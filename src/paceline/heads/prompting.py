"""What a target goes on with while a head is tried on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from paceline.bundled import PROMPTS
from paceline.heads.seen import LONGEST_PROMPT

_NUM_PROMPTS = 8


def prompts_for(tokenizer: Any) -> Sequence[Sequence[int]]:
    """A few of the bundled prompts, of all kinds, in the tokens of a target; none without its tokenizer.

    Two of four are asked as a user of a chat would, where the target has a template for it.
    """
    if tokenizer is None:
        return []
    lines = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    chosen = lines[:: max(len(lines) // _NUM_PROMPTS, 1)][:_NUM_PROMPTS]
    read = [tokenizer(text, verbose=False)["input_ids"] for text in chosen]
    if getattr(tokenizer, "chat_template", None):
        read = [
            _asked(tokenizer, text, ids) if i % 4 > 1 else ids
            for i, (text, ids) in enumerate(zip(chosen, read, strict=True))
        ]
    return [ids for ids in read if ids]


def _asked(tokenizer: Any, text: str, ids: Sequence[int]) -> Sequence[int]:
    """A text as a message of a user's; the text alone where the template does not take it, or says much itself."""
    with suppress(Exception):  # templates are programs of others
        message = [{"role": "user", "content": text}]
        made = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
        return made if len(made) <= LONGEST_PROMPT else ids
    return ids
