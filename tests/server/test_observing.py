"""`/metrics`, `/requests`, `/load`: what they say after requests whose figures are known."""

from __future__ import annotations

import re
import threading
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from paceline.errors import DeadlineError
from paceline.learning import EVENTS
from paceline.server import Settings
from paceline.server.observing.catalogue import catalogue, one_two_five
from paceline.testing import ScriptedDrafter

from .scripted import BAD, BUDGET, asked, counting, scraped, until, value


def test_metrics_equal_what_is_counted_by_hand() -> None:
    with counting() as (client, _law, _app):
        asked(client, [1, 2, 3], 20)  # 8 + 8 + 4 tokens, of them 7 + 7 + 3 drafts
        asked(client, [[5], [6, 7]], 3, n=2)  # four samples: 2 drafts and 1 token each
        samples = scraped(client)
        counted = {
            "vllm:prompt_tokens_total": 3 + 2 * (1 + 2),
            "vllm:prefix_cache_queries_total": 3 + 2 * (1 + 2),
            "vllm:prefix_cache_hits_total": 0,
            "vllm:generation_tokens_total": 20 + 4 * 3,
            "vllm:spec_decode_num_drafts_total": 3 + 4,
            "vllm:spec_decode_num_draft_tokens_total": 17 + 8,
            "vllm:spec_decode_num_accepted_tokens_total": 17 + 8,
            "vllm:time_to_first_token_seconds_count": 5,
            "vllm:inter_token_latency_seconds_count": 2,
            "paceline:inter_token_latency_seconds_count": 8 + 4,
            "paceline:tokens_per_step_count": 7,
            "paceline:tokens_per_step_sum": 32,
            "vllm:request_time_per_output_token_seconds_count": 5,
            "vllm:e2e_request_latency_seconds_count": 5,
            "vllm:request_prompt_tokens_sum": 9,
            "vllm:request_generation_tokens_sum": 32,
            "vllm:request_max_num_generation_tokens_sum": 23,
            "vllm:request_params_max_tokens_sum": 32,
            "vllm:request_params_n_sum": 3,
            "vllm:request_prefill_kv_computed_tokens_sum": 9,
            "vllm:request_num_preemptions_sum": 0,
            "vllm:num_requests_running": 0,
            "vllm:num_requests_waiting": 0,
            "vllm:kv_cache_usage_perc": 0,
            "paceline:open_requests": 0,
            "paceline:open_responses": 1,
            "paceline:cache_tokens": 500,
        }
        assert {name: value(samples, name) for name in counted} == counted
        by_position = [
            value(samples, "vllm:spec_decode_num_accepted_tokens_per_pos_total", position=str(i)) for i in range(BUDGET)
        ]
        assert by_position == [7, 7, 3, 2, 2, 2, 2]
        assert value(samples, "vllm:request_success_total", finished_reason="length") == 5
        assert value(samples, "paceline:drafter_draft_tokens_total", drafter="scripted") == 25
        assert value(samples, "vllm:iteration_tokens_total_sum") == 9 + 32
        assert value(samples, "vllm:request_generation_tokens_bucket", le="2.0") == 0
        assert value(samples, "vllm:request_generation_tokens_bucket", le="5.0") == 4
        of_http = {"handler": "/v1/completions", "method": "POST", "status": "200"}
        assert samples["http_requests_total", tuple(sorted(of_http.items()))] == 2


def test_what_became_of_learning_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedDrafter, "learnt", lambda self: {"candidates": 3, "promotions": 2}, raising=False)
    with counting() as (client, _law, _app):
        asked(client, [1, 2, 3], 5)
        samples = scraped(client)
        told = {event: value(samples, "paceline:head_learning", event=event) for event in EVENTS}
        assert told == {"candidates": 3, "promotions": 2, "rollbacks": 0, "restorations": 0}


@pytest.mark.parametrize("right", [0, 2])
def test_rejected_drafts_are_not_counted_as_accepted(right: int) -> None:
    with counting(right=right) as (client, _law, _app):
        told = asked(client, [1], 12).json()["metrics"]["speculative_decoding"]
        samples = scraped(client)
        drafted = value(samples, "vllm:spec_decode_num_draft_tokens_total")
        accepted = value(samples, "vllm:spec_decode_num_accepted_tokens_total")
        steps = value(samples, "paceline:tokens_per_step_count")
        assert accepted == 12 - steps == (0 if right == 0 else 8)
        assert (told["num_draft_tokens"], told["num_accepted_tokens"]) == (drafted, accepted)
        assert told["num_drafts"] == value(samples, "vllm:spec_decode_num_drafts_total")
        assert told["mean_acceptance_length"] == 1 + accepted / told["num_drafts"]


def test_counters_never_decrease_and_totals_are_those_of_responses() -> None:
    """Many at once, some of whom leave; the sums are those that their clients were told."""
    with counting() as (client, law, _app):
        law.seconds = 0.0002
        told: Counter[str] = Counter()
        lock = threading.Lock()

        def ask(seed: int) -> None:
            for i in range(4):
                answer = asked(client, list(range(1, 2 + (seed * 7 + i) % 9)), 1 + (seed * 5 + i) % 23)
                with lock:
                    told.update({k: v for k, v in answer.json()["usage"].items() if isinstance(v, int)})

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        last = scraped(client)
        while any(thread.is_alive() for thread in threads):
            now = scraped(client)
            falling = [
                key for key in last if key[0].endswith(("_total", "_count", "_bucket", "_sum")) and now[key] < last[key]
            ]
            assert not falling
            last = now
        samples = scraped(client)
        assert value(samples, "vllm:prompt_tokens_total") == told["prompt_tokens"]
        assert value(samples, "vllm:generation_tokens_total") == told["completion_tokens"]
        assert value(samples, "vllm:request_success_total", finished_reason="length") == 24


def test_a_client_that_leaves_is_499_and_an_abort() -> None:
    with counting() as (client, law, _app):
        law.seconds = 0.01
        with client.stream(
            "POST", "/v1/completions", json={"prompt": [1], "max_tokens": 400, "stream": True}
        ) as answer:
            lines = answer.iter_lines()  # kept: httpx leaves with it
            next(lines)
            [row] = client.get("/requests").json()["data"]
            assert (row["state"], row["num_prompt_tokens"]) == ("decode", 1)
            assert row["request_id"] == answer.headers["x-request-id"]
            assert client.get("/load").json() == {"server_load": 1}
            running = scraped(client)
            assert value(running, "vllm:num_requests_running") == 1
            assert value(running, "paceline:open_responses") == 2
        samples = until(client, "vllm:request_success_total", 1, finished_reason="abort")
        assert value(samples, "vllm:e2e_request_latency_seconds_count") == 0
        until(client, "paceline:open_responses", 1)
        of_http = {"handler": "/v1/completions", "method": "POST", "status": "499"}
        assert scraped(client)["http_requests_total", tuple(sorted(of_http.items()))] == 1
        assert client.get("/requests").json()["data"] == []


def test_every_series_of_the_model_has_its_labels_and_no_other() -> None:
    known = {metric.name: metric for metric in catalogue(500)}
    with counting() as (client, _law, _app):
        asked(client, [1], 9, nonsense=1, other=2)
        client.get("/nothing/here")
        for family in text_string_to_metric_families(client.get("/metrics").text):
            if family.name.startswith("process_"):
                continue
            metric = known.pop(family.name)
            assert family.type == metric.kind
            for sample in family.samples:
                base = {"model_name", "engine"} if metric.is_of_model else set()
                assert set(sample.labels) - {"le"} == base | set(metric.labels), sample
        assert not known, "declared, but never shown"
        samples = scraped(client)
        assert value(samples, "paceline:ignored_fields_total") == 2
        assert value(samples, "paceline:process_resident_memory_bytes") > 1e7
        guesses = {dict(labels)["handler"] for name, labels in samples if name == "http_requests_total"}
        assert guesses == {"/v1/completions", "/metrics", "none"}


def test_two_applications_have_registries_of_their_own() -> None:
    with counting() as (first, _, _), counting(Settings(("counting",))) as (second, _, _):
        asked(first, [1], 2)
        assert value(scraped(first), "vllm:generation_tokens_total") == 2
        assert value(scraped(second), "vllm:generation_tokens_total") == 0


def test_a_step_that_takes_long_holds_up_no_scrape() -> None:
    with counting() as (client, law, app):
        law.seconds = 2.5
        thread = threading.Thread(target=asked, args=(client, [1], 1))
        thread.start()
        while not app.state.service.telemetry.open:
            pass
        app.state.service.runtime.thread.ask(lambda: None)
        assert client.get("/metrics", timeout=2.0).status_code == 200
        thread.join()


def test_preemptions_are_counted_where_they_happen() -> None:
    with counting(cache_tokens=60) as (client, _law, _app):
        assert asked(client, [1, 2, 3], 40, n=4).status_code == 200
        samples = scraped(client)
        preempted = value(samples, "vllm:num_preemptions_total")
        assert preempted > 0
        assert value(samples, "vllm:request_num_preemptions_sum") == preempted
        assert value(samples, "vllm:generation_tokens_total") == 160
        assert value(samples, "vllm:prompt_tokens_total") == 12
        of_parts = [value(samples, f"vllm:request_{part}_time_seconds_sum") for part in ("queue", "prefill", "decode")]
        assert min(of_parts) > 0
        assert sum(of_parts) == pytest.approx(value(samples, "vllm:e2e_request_latency_seconds_sum"))


def test_deadlines_are_counted_by_what_became_of_them() -> None:
    with counting() as (client, law, app):
        law.seconds = 0.005
        generate = app.state.llm.generate
        assert len(generate([1, 2], max_tokens=2, deadline_ms=60_000).token_ids) == 2
        assert 0 < len(generate([1, 2], max_tokens=400, deadline_ms=500).token_ids) < 400
        with pytest.raises(DeadlineError):
            generate([1, 2], max_tokens=2, deadline_ms=0.001)
        samples = scraped(client)
        outcomes = ("met", "cut", "refused", "given_up")
        assert [value(samples, "paceline:deadline_requests_total", outcome=one) for one in outcomes] == [1, 1, 1, 0]
        assert value(samples, "vllm:request_success_total", finished_reason="error") == 1


def test_a_prompt_that_is_only_read_has_no_first_token() -> None:
    with counting() as (client, _law, _app):
        answer = asked(client, [1, 2, 3], 0)
        assert answer.json()["usage"]["completion_tokens"] == 0
        assert answer.json()["metrics"]["time_to_first_token_ms"] is None
        samples = scraped(client)
        assert value(samples, "vllm:prompt_tokens_total") == 3
        assert value(samples, "vllm:time_to_first_token_seconds_count") == 0
        assert value(samples, "vllm:request_success_total", finished_reason="length") == 1


def test_lengths_are_in_buckets_of_one_two_five() -> None:
    assert one_two_five(500) == (1, 2, 5, 10, 20, 50, 100, 200, 500)
    assert one_two_five(1) == (1,)


def test_metrics_of_a_response_are_ordered_times() -> None:
    with counting() as (client, law, _app):
        law.seconds = 0.002
        told = asked(client, [1, 2], 17, n=2).json()["metrics"]
        assert min(told["time_to_first_token_ms"], told["generation_time_ms"]) > 2
        assert told["queue_time_ms"] >= 0
        assert 0 < told["mean_itl_ms"] < told["generation_time_ms"]
        assert told["speculative_decoding"]["drafters"] == {
            "scripted": {"num_draft_tokens": 28, "num_accepted_tokens": 28}
        }
        body = {"prompt": [3], "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
        events = client.post("/v1/completions", json=body).text.split("\n\n")
        assert '"metrics":{"time_to_first_token_ms":' in events[-3]
        assert sum("metrics" in event for event in events) == 1


def test_ids_of_clients_are_echoed_if_they_are_sane() -> None:
    with counting() as (client, _law, _app):
        for path, status in (("/health", 200), ("/nothing", 404), ("/v1/completions", 405)):
            answer = client.get(path, headers={"x-request-id": "mine, the 1st!"})
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine, the 1st!")
        for odd in ("x" * 129, "", "tab\there", b"\xc3\xa9"):
            made = client.get("/health", headers={"x-request-id": odd}).headers["x-request-id"]
            assert re.fullmatch("req-[0-9a-f]{32}", made)
        assert client.get("/health").headers["x-request-id"] != client.get("/health").headers["x-request-id"]


@pytest.mark.filterwarnings("ignore:drafter 'scripted' failed")
def test_failures_name_the_request_and_nothing_else() -> None:
    with counting() as (client, _law, app):

        @app.get("/boom")
        def boom() -> None:
            raise RuntimeError("inner secret")

        for answer in (
            client.get("/boom", headers={"x-request-id": "b-1"}),
            asked(client, [BAD], 3),
        ):
            assert answer.status_code == 500
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
            assert "secret" not in answer.text
        assert value(scraped(client), "vllm:request_success_total", finished_reason="error") == 1
        assert asked(client, [1], 3).status_code == 200


def test_ids_of_others_are_not_shown() -> None:
    settings = Settings(("counting",), keys=("one", "two"))
    with counting(settings) as (client, law, _app):
        law.seconds = 0.01
        body = {"prompt": [1], "max_tokens": 400, "stream": True}
        of_one = {"authorization": "Bearer one", "x-request-id": "private"}
        with client.stream("POST", "/v1/completions", json=body, headers=of_one) as answer:
            lines = answer.iter_lines()  # kept: httpx leaves with it
            next(lines)
            mine = client.get("/requests", headers={"authorization": "Bearer one"}).json()["data"]
            others = client.get("/requests", headers={"authorization": "Bearer two"})
            assert [row["request_id"] for row in mine] == ["private"]
            assert [row["request_id"] for row in others.json()["data"]] == [None]
            assert "private" not in others.text
        assert client.get("/requests").status_code == 401
