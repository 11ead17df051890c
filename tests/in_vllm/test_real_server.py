"""vLLM's own server with Paceline in it, beside vLLM alone: mixed requests, counters, greedy texts.

`scripts/vllm_tests` has it run where vLLM is.
"""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """By server, the answers of two passes and what /metrics says then."""
    shown: dict[str, Any] = {}
    for name in ("vllm", "paceline"):
        with vllm_soak.started(name, "paceline-tiny", OPTIONS) as url, vllm_soak.Traffic(url) as traffic:
            answers = [traffic.answers(ASKED) for _ in range(2)]
            metrics = httpx.get(f"{url}/metrics", trust_env=False).text
            shown[name] = (*answers, _samples(metrics))
    return shown


def _samples(text: str) -> dict[tuple[str, str], float]:
    """By name and by drafter, or whatever else tells one of a name from another."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, s.labels.get("drafter") or s.labels.get("reason") or ""): s.value for s in samples}


def test_no_request_fails(found: dict[str, Any]) -> None:
    for answers in found["paceline"][:2]:
        assert not vllm_soak.failures(ASKED, answers)


def test_greedy_texts_are_vllms_where_it_agrees_with_itself(found: dict[str, Any]) -> None:
    first, second, _ = found["vllm"]
    mine, again, _ = found["paceline"]
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
