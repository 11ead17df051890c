from __future__ import annotations

from collections.abc import Iterator

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .running import running

# Roles as plain lines: the bundled model has no template of its own.
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="session")
def url(bundled: LLM) -> Iterator[str]:
    """The bundled model, served."""
    with running(create_app(bundled, Settings(("paceline-tiny", "org/other"), chat_template=TEMPLATE))) as url:
        yield url
