"""A stand-in for `FreshProcess` that costs no process: reading torch and transformers again takes seconds each time."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest


class Here:
    """What a fresh process would answer, in this one; real ones have tests of their own."""

    def __init__(self, serve: str, settings: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        module, _, function = serve.partition(":")
        serve_here = getattr(importlib.import_module(module), function)
        self._served, self._environment = serve_here(**json.loads(json.dumps(settings))), environment or {}

    def __enter__(self) -> Here:
        self._patch = pytest.MonkeyPatch()
        for name, value in self._environment.items():
            self._patch.setenv(name, value)
        self.opened, self._answer = self._served.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._served.__exit__(*error)
        self._patch.undo()

    def ask(self, **question: Any) -> Any:
        return json.loads(json.dumps(self._answer(**json.loads(json.dumps(question)))))
