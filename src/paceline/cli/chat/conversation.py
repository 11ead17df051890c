"""A conversation: who said what; as messages, as one growing text, and as the JSON object of `/save`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORMAT = 1


@dataclass
class Turn:
    """What a user or the model said."""

    role: str  # "user" or "assistant"
    text: str
    is_cut: bool = False  # the user stopped the answer, or it broke off: there would have been more
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.is_cut:
            found["is_cut"] = True
        return found | ({"figures": self.figures} if self.figures else {})


@dataclass
class Conversation:
    """What was said so far."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        """The messages of OpenAI's API; an answer without text is left out, as templates may refuse it."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        said = [turn for turn in self.turns if turn.text or turn.role == "user"]
        return head + [{"role": turn.role, "content": turn.text} for turn in said]

    def text(self) -> str:
        """All that was said as one text. A word that follows without a space gets one."""
        found = ""
        for turn in self.turns:
            is_word = turn.role == "user" and turn.text[:1].isalnum()
            found += (" " if is_word and found and not found[-1].isspace() else "") + turn.text
        return found

    def drop_answer(self) -> list[Turn]:
        """Take the last answer away, if that is what was said last, and return it."""
        return [self.turns.pop()] if self.turns and self.turns[-1].role == "assistant" else []

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `/save` writes."""
        return {"format": FORMAT, "system": self.system, "messages": [turn.as_dict() for turn in self.turns]}
