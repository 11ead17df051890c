"""vLLM's own server with Paceline in it, beside vLLM alone: mixed requests, counters, greedy texts.

`scripts/vllm_tests` has it run where vLLM is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paceline.errors import ConfigError
from paceline.vllm.serving import installed_vllm

try:
    installed_vllm()
except ConfigError as error:
    pytest.skip(f"{error}; scripts/vllm_tests runs this", allow_module_level=True)

import httpx
import vllm_soak
from prometheus_client.parser import text_string_to_metric_families
from vllm_requests import KINDS, mixed

ASKED = mixed(3 * len(KINDS), 1)
OPTIONS = ["--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "8"]


TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SAID = {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 40}
# Endpoints that are spoken to: what they are asked, and where the text stands in an answer.
SPOKEN: dict[str, tuple[dict[str, Any], Callable[[Any], str]]] = {
    "chat/completions": (SAID, lambda answer: answer["choices"][0]["message"]["content"]),
    "responses": (
        {"input": "Once upon a time", "max_output_tokens": 40, "store": False},
        lambda answer: answer["output"][-1]["content"][0]["text"],
    ),
    "messages": (SAID, lambda answer: answer["content"][0]["text"]),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By server, the answers of two passes, what /metrics says then, and what it says when spoken to."""
    shown: dict[str, Any] = {}
    template = tmp_path_factory.mktemp("templates") / "plain.jinja"
    template.write_text(TEMPLATE)
    for name in ("vllm", "paceline"):
        options = [*OPTIONS, "--chat-template", str(template)]
        with vllm_soak.started(name, "paceline-tiny", options) as url, vllm_soak.Traffic(url) as traffic:
            answers = [traffic.answers(ASKED) for _ in range(2)]
            shown[name] = (*answers, _samples(url), _spoken(url), _samples(url))
    return shown


def _spoken(url: str) -> dict[str, list[str]]:
    """By endpoint, the greedy text: at first, with that as the prediction, and as a stream."""
    return {path: _answers(f"{url}/v1/{path}", *asked) for path, asked in SPOKEN.items()}


def _answers(url: str, fields: dict[str, Any], text_of: Callable[[Any], str]) -> list[str]:
    body = {"model": vllm_soak.NAME, "temperature": 0, **fields}
    first = text_of(_post(url, body).json())
    foretold = {"prediction": {"type": "content", "content": first}, "cache_salt": "a tenant of its own"}
    again = text_of(_post(url, body | foretold).json())
    streamed = _post(url, body | {"stream": True}).text
    return [first, again, "".join(_pieces(streamed))]


def _post(url: str, body: dict[str, Any]) -> httpx.Response:
    answer = httpx.post(url, json=body, timeout=300, trust_env=False)
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer


def _pieces(streamed: str) -> Iterator[str]:
    """The pieces of text in a stream of any of the endpoints."""
    for line in streamed.splitlines():
        event = json.loads(line[6:]) if line.startswith("data: {") else {}
        delta = event["choices"][0]["delta"] if event.get("choices") else event.get("delta")
        if isinstance(delta, dict):
            yield delta.get("content") or delta.get("text") or ""
        elif isinstance(delta, str):
            yield delta


def _samples(url: str) -> dict[tuple[str, str], float]:
    """By name and by drafter, or whatever else tells one of a name from another."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", trust_env=False).text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, s.labels.get("drafter") or s.labels.get("reason") or ""): s.value for s in samples}


def test_no_request_fails(found: dict[str, Any]) -> None:
    for answers in found["paceline"][:2]:
        assert not vllm_soak.failures(ASKED, answers)


def test_greedy_texts_are_vllms_where_it_agrees_with_itself(found: dict[str, Any]) -> None:
    first, second = found["vllm"][:2]
    mine, again = found["paceline"][:2]
    steady = [i for i, one in enumerate(ASKED) if one.is_compared and first[i] == second[i]]
    assert len(steady) > 20
    assert [(ASKED[i].kind, mine[i]) for i in steady] == [(ASKED[i].kind, first[i]) for i in steady]
    assert [again[i] for i in steady] == [first[i] for i in steady]


def test_counters_stand_beside_vllms(found: dict[str, Any]) -> None:
    samples = found["paceline"][2]

    def total(name: str) -> float:
        return sum(value for (one, _), value in samples.items() if one == name)

    drafted, accepted = total("paceline:drafter_draft_tokens_total"), total("paceline:drafter_accepted_tokens_total")
    assert 0 < accepted <= drafted <= total("vllm:spec_decode_num_draft_tokens_total")
    assert accepted == pytest.approx(total("vllm:spec_decode_num_accepted_tokens_total"), rel=0.1)
    assert total("paceline:failures_total") == total("paceline:drafter_failures_total") == 0
    assert total("paceline:drafting_seconds_total") > 0
    assert samples["paceline:drafter_proposals_total", "history"] > 0
    assert total("paceline:pacer_stops_total") > 0
    assert not [name for name, _ in found["vllm"][2] if name.startswith("paceline:")]


@pytest.mark.parametrize("path", SPOKEN)
def test_whoever_is_spoken_to_says_what_vllm_says(found: dict[str, Any], path: str) -> None:
    (said,) = set(found["vllm"][3][path])
    assert len(said) > 40
    assert found["paceline"][3][path] == [said] * 3


def test_what_was_foretold_in_chats_is_drafted(found: dict[str, Any]) -> None:
    before, after = found["paceline"][2], found["paceline"][4]
    accepted = "paceline:drafter_accepted_tokens_total", "prediction"
    assert after[accepted] > before.get(accepted, 0.0)
