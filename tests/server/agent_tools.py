"""Tools that tests hand over, in each API's form. Their arguments are short, so that a story model fills them in."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
CLOCK: dict[str, Any] = {"name": "get_time", "parameters": {"type": "object", "additionalProperties": False}}
CHAT: Any = [{"type": "function", "function": function} for function in (WEATHER, CLOCK)]
RESPONSES: Any = [{"type": "function", "strict": True, **function} for function in (WEATHER, CLOCK)]
MESSAGES: Any = [
    {"name": "get_weather", "description": "The weather of a city.", "input_schema": PARAMETERS},
    {"name": "get_time", "input_schema": CLOCK["parameters"]},
]


def is_weather(arguments: dict[str, Any]) -> bool:
    """Whether the arguments are what `PARAMETERS` allows."""
    return arguments["city"] in ("Paris", "Rome") and arguments["days"] in range(1, 10) and len(arguments) == 2
