"""`paceline serve` says what is wrong with a template before it reads a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from paceline.cli import app
from paceline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "allowed: a text file"), ("{", "allowed: a file of JSON"), ("[]", "allowed: a response template")],
)
def test_a_response_template_that_is_none_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "response.json"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(app, ["serve", "--response-template", str(file)])
    assert isinstance(result.exception, ConfigError), result.output
    assert told in str(result.exception)
    assert "--response-template" in str(result.exception)
