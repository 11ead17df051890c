from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .running import running

# The bundled model has no templates of its own. Here roles are plain lines, and tools come first, one to a line; what a
# call and the thinking look like is Qwen's.
TEMPLATE = (
    "{% for tool in tools or [] %}tool: {{ tool | tojson }}{{ '\n' }}{% endfor %}"
    "{% for message in messages %}"
    "{% if message.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}"
    "{{ message.role }}: "
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% if enable_thinking %}<think>{% endif %}{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "assistant:",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"content": "text"},
    },
}


def settings_for_tests(**changes: Any) -> Settings:
    names = ("paceline-tiny", "org/other")
    return Settings(names, **{"chat_template": TEMPLATE, "response_template": RESPONSE_TEMPLATE, **changes})


@pytest.fixture(scope="session")
def url(bundled: LLM) -> Iterator[str]:
    """The bundled model, served."""
    with running(create_app(bundled, settings_for_tests())) as url:
        yield url
