"""A server whose model counts up, and whose drafter knows it: every figure can be worked out by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from paceline import LLM
from paceline.server import Settings, create_app
from paceline.testing import ScriptedDrafter, ScriptedTarget

from .running import running

VOCABULARY = 50
BAD = VOCABULARY - 1  # a token that the model cannot go on from
BUDGET = 7  # draft tokens a step, of the pacer that fakes have


class Counting:
    """The law of the model: the next number. `seconds` a row, to have time for something else."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, history: tuple[int, ...]) -> Any:
        time.sleep(self.seconds)
        if history[-1] == BAD:
            raise RuntimeError(f"no way on, secret {SECRET}")
        return 100.0 * np.eye(VOCABULARY)[(history[-1] + 1) % BAD]


SECRET = 8_675_309


@contextmanager
def counting(settings: Settings | None = None, right: int | None = None, **options: Any) -> Iterator[Any]:
    """A served model that counts, its law at hand; `right`: drafts of a step that are right, all without."""
    law = Counting()
    target = ScriptedTarget(law, VOCABULARY, max_length=500, **options)
    drafter = ScriptedDrafter.perfect(target) if right is None else ScriptedDrafter.adversarial(target, right)
    with LLM.from_target(target, drafters=[drafter]) as llm:
        app = create_app(llm, settings or Settings(("counting",)))
        app.state.llm = llm
        with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client, law, app


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(client: httpx.Client) -> Samples:
    """All samples of `/metrics` by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    """A sample of the model's."""
    return samples[name, tuple(sorted({"model_name": "counting", "engine": "0", **labels}.items()))]


def until(client: httpx.Client, name: str, wanted: float, **labels: str) -> Samples:
    """The samples once one of them has a value."""
    end = time.monotonic() + 20
    while True:
        samples = scraped(client)
        if value(samples, name, **labels) == wanted:
            return samples
        assert time.monotonic() < end, f"{name} is {value(samples, name, **labels)}, not {wanted}"
        time.sleep(0.01)


def asked(client: httpx.Client, prompt: Sequence[Any], max_tokens: int, **body: Any) -> httpx.Response:
    """The answer to a completion."""
    given = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **body}
    return client.post("/v1/completions", json=given)
