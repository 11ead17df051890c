"""The OpenAPI schema, held against what the server answers to requests drawn from it, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies
from schemathesis import openapi
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from paceline import LLM
from paceline.server import create_app

from .conftest import settings_for_tests
from .running import running

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
NUM_EXAMPLES = 30  # of each mode, over all endpoints
CAPS = {"max_tokens": 3, "max_completion_tokens": 3, "max_output_tokens": 3, "n": 2, "min_tokens": 3}


@pytest.fixture(scope="module")
def schema(bundled: LLM) -> Iterator[Any]:
    with running(create_app(bundled, settings_for_tests(any_model=True))) as url:
        yield openapi.from_url(f"{url}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_drawn_from_the_schema_is_answered_as_it_says(schema: Any, mode: GenerationMode) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    drawn = []
    for operation in operations:
        with suppress(Exception):  # nothing about it can be wrong
            drawn.append(operation.as_strategy(generation_mode=mode))
    assert len(drawn) >= 8
    statuses: set[int] = set()

    @hypothesis.seed(14)
    @hypothesis.settings(
        max_examples=NUM_EXAMPLES,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.one_of(drawn))
    def check(case: Any) -> None:
        statuses.add(answered(case))

    check()
    assert 422 not in statuses
    assert {400} <= statuses if mode is GenerationMode.NEGATIVE else {200, 400} <= statuses


def answered(case: Any) -> int:
    """The status of a response that keeps to the schema."""
    if isinstance(case.body, dict):
        for name, most in CAPS.items():
            if isinstance(case.body.get(name), int):
                case.body[name] = min(case.body[name], most) if case.body[name] >= 0 else most
        if case.path != "/v1/chat/completions":
            case.body.setdefault("max_tokens", 3)
    response = case.call_and_validate(checks=CHECKS, timeout=60)
    if response.status_code >= 400:
        error = response.json()["error"]
        assert error["message"]
        assert "Traceback" not in response.text
    return int(response.status_code)


def test_every_endpoint_says_how_it_fails(schema: Any) -> None:
    for path, methods in schema.raw_schema["paths"].items():
        for told in methods.values():
            assert set(told["responses"]) == {"200", "4XX", "5XX"}, path
            form = "AnthropicErrorBody" if path.startswith("/v1/messages") else "ErrorBody"
            reference = told["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
            assert reference.rpartition("/")[2] == form
