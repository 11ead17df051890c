"""`paceline bench serve` against a server that does what it is told, and against our own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from goals import goals_of
from typer.testing import CliRunner

from paceline.bench.cli import app
from paceline.bench.serve.client import connected
from paceline.bench.serve.load import Load, LoadPlan, run_load
from paceline.bench.serve.process import running as running_process
from paceline.bench.serve.prompts import RandomSizes, ServePrompt
from paceline.bench.serve.run import Asked, bench_load, bench_sweep
from paceline.bench.serve.sweep import SweepPlan, sweep_table
from paceline.errors import StateError

from .fake_peer import FakePeer
from .running import running

SIZES = RandomSizes(input_len=9, output_len=4)


@pytest.fixture
def peer() -> FakePeer:
    return FakePeer()


@pytest.fixture
def peer_url(peer: FakePeer) -> Iterator[str]:
    with running(peer.app()) as url:
        yield url


def lines(folder: Path, *prompts: str) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "output_tokens": 6}) + "\n" for prompt in prompts))
    return path


def measured(url: str, asked: Asked, plan: LoadPlan) -> Load:
    return asyncio.run(bench_load(url, asked, plan, num_warmups=0)).load


def test_every_request_is_in_the_result_whatever_became_of_it(peer_url: str, tmp_path: Path) -> None:
    words = ["fine", "refuse", "reject", "break", "error", "garbage", "cut", "fine"]
    asked = Asked(dataset="custom", path=lines(tmp_path, *words), fields={"deadline_ms": 5000})
    load = measured(peer_url, asked, LoadPlan())
    assert [(a.outcome, a.status) for a in load.answers] == [
        ("ok", 200),
        ("refused", 408),
        ("rejected", 429),
        ("failed", 200),
        ("failed", 200),
        ("failed", 200),
        ("cut", 200),
        ("ok", 200),
    ]
    whole = load.answers[0]
    assert "".join(whole.texts) == " wörd wörd wörd"
    assert ([count for _, count in whole.chunks], whole.num_tokens, whole.prompt_tokens) == ([2, 2, 2], 6, 7)
    assert load.answers[1].error == "will not refuse"
    assert "without a finish_reason" in str(load.answers[3].error)
    assert load.answers[4].error == "a step failed"


def test_without_a_deadline_408_is_a_rejection(peer_url: str, tmp_path: Path) -> None:
    load = measured(peer_url, Asked(dataset="custom", path=lines(tmp_path, "refuse", "fine")), LoadPlan())
    assert [a.outcome for a in load.answers] == ["rejected", "ok"]


def test_nothing_answered_is_an_error_with_the_first_reason(peer_url: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="none of 1 requests was answered: 429 will not reject"):
        measured(peer_url, Asked(dataset="custom", path=lines(tmp_path, "reject")), LoadPlan())
    with pytest.raises(StateError, match="v1/models: ConnectError"):
        measured("http://127.0.0.1:1", Asked(), LoadPlan())


def test_a_closed_loop_keeps_to_its_clients(peer: FakePeer, peer_url: str) -> None:
    peer.seconds = 0.002
    load = measured(peer_url, Asked(count=20, sizes=SIZES), LoadPlan(max_concurrency=3))
    assert peer.most == 3
    assert len(load.answers) == 20
    assert load.lateness == []  # nothing was due at any time
    assert load.saturated_until is not None
    assert load.saturated_until <= load.ended
    assert load.saturated_until in sorted(a.ended for a in load.answers)[-3:]  # the first to find nothing more to ask


def test_each_request_has_a_connection_of_its_own(peer: FakePeer, peer_url: str) -> None:
    """A server may close one after a stream, and what is sent on it just then is lost: llama-server does so."""
    load = measured(peer_url, Asked(count=6, sizes=SIZES), LoadPlan(max_concurrency=1))
    assert [a.outcome for a in load.answers] == ["ok"] * 6
    assert len(set(peer.ports)) == 6


def test_an_open_loop_sends_on_time_however_many_wait(peer: FakePeer, peer_url: str) -> None:
    peer.seconds = 0.2
    load = measured(peer_url, Asked(count=8, sizes=SIZES), LoadPlan(request_rate=100.0))
    assert load.saturated_until is None
    assert len(load.lateness) == 8
    assert peer.most == 8
    assert all(a.sent >= a.due for a in load.answers)
    assert load.answers[-1].due == pytest.approx(load.started + 8 / 100)


def test_bodies_are_those_of_the_api(peer: FakePeer, peer_url: str) -> None:
    asked = {"ignore_eos": True, "sizes": SIZES, "fields": {"seed": 5}}
    measured(peer_url, Asked(dataset="random", count=1, **asked), LoadPlan())
    measured(peer_url, Asked(backend="openai-chat", count=1, **asked), LoadPlan(fields={"deadline_ms": 90}))
    random, chat = peer.bodies
    usage = {"include_usage": True, "continuous_usage_stats": True}
    common = {"model": "org/fake", "temperature": 0.0, "stream": True, "stream_options": usage, "seed": 5}
    assert {type(one) for one in random["prompt"]} == {int}
    assert len(random.pop("prompt")) == SIZES.input_len
    assert random == {**common, "max_tokens": 4, "ignore_eos": True}
    (message,) = chat.pop("messages")
    assert message["role"] == "user"
    assert chat == {**common, "max_completion_tokens": 4, "ignore_eos": True, "deadline_ms": 90}


def test_a_sweep_asks_every_prompt_once_a_cell_in_turns(peer: FakePeer, peer_url: str) -> None:
    plan = SweepPlan((1, 4), repeats=2, num_warmups=2)
    _, sweep = asyncio.run(bench_sweep(peer_url, Asked(count=6, sizes=SIZES), plan))
    assert len(peer.bodies) == 2 * 2 + 2 * 2 * 2 * 6
    prompts: dict[tuple[str, str], list[str]] = {}
    for body in peer.bodies[4:]:
        name, turn, task = body["cache_salt"].split(", ")
        assert ("speculation" in body) is (name == "plain")
        prompts.setdefault((name, turn), []).append(task + body["prompt"])
    assert len(prompts) == 8
    assert all(len(set(asked)) == 6 for asked in prompts.values())
    assert [name for name, _ in prompts] == ["plain", "speculative", "speculative", "plain"] * 2
    assert [len(cell["rounds"]) for cell in sweep.cells()] == [2, 2, 2, 2]
    assert sweep.rounds["plain", 4][0]["outside_engine_share"] == 1.0  # its engine is never busy
    assert [row[1] for row in sweep_table("fake", sweep).rows] == ["1", "4", "1", "4"]


def test_the_command_writes_vllms_keys(peer: FakePeer, peer_url: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    arguments = ["--num-prompts", "5", "--output-len", "4", "--max-concurrency", "2", "--save-detailed"]
    arguments += ["--goodput", "ttft:60000", "e2el:60000", "--deadline-ms", "60000", "--result-filename", str(path)]
    done = CliRunner().invoke(app, ["serve", "--base-url", peer_url, *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert "100.0% whole in time" in done.stdout
    assert "Load generator" in done.stdout
    found = json.loads(path.read_text())
    assert found.keys() >= VLLM_KEYS
    assert (found["completed"], found["failed"], found["max_concurrency"], found["request_rate"]) == (5, 0, 2, "inf")
    assert found["spec_decode_acceptance_length"] == 2.0
    assert found["request_goodput"] == pytest.approx(found["request_throughput"])
    assert all(len(found[key]) == 5 for key in ("ttfts", "itls", "generated_texts", "errors", "output_lens"))
    assert {body["deadline_ms"] for body in peer.bodies} == {60000.0}


def test_the_command_sweeps_what_goals_read(peer_url: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    arguments = ["--model", "inflated", "--dtype", "bfloat16", "--sweep", "1,16", "--repeats", "1", "--json", str(path)]
    arguments += ["--num-prompts", "3", "--num-warmups", "1", "--output-len", "4", "--base-url", peer_url]
    done = CliRunner().invoke(app, ["serve", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert [done.stdout.count(f"│ {name}") for name in ("plain", "speculative")] == [2, 2]
    lines = goals_of(path)
    assert len(lines) == 6
    assert lines[-1].is_reached  # 12 of 12 are whole


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--request-rate", "0"], "request-rate"),
        (["--dataset-name", "sharegpt"], "tasks, custom, random"),
        (["--goodput", "ttft"], "goodput"),
        (["--extra-body", "[]"], "extra-body"),
        (["--backend", "triton"], "openai-chat"),
        (["--dataset-name", "custom"], "dataset-path"),
        (["--dataset-name", "random", "--backend", "openai-chat"], "random"),
    ],
)
def test_what_cannot_be_asked_is_refused(peer_url: str, arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--base-url", peer_url, *arguments])
    assert done.exit_code != 0
    assert words in str(done.exception)


def test_our_own_server_is_asked_the_same(url: str) -> None:
    sizes = RandomSizes(output_len=16)  # the shortest text of the grammar is 13 tokens
    asked = Asked(count=11, sizes=sizes, fields={"speculation": {"drafters": "none"}})
    load = measured(url, asked, LoadPlan(max_concurrency=4))
    assert [(a.outcome, a.error) for a in load.answers] == [("ok", None)] * 11
    assert {a.token_source for a in load.answers} == {"usage"}
    assert all(sum(count for _, count in a.chunks) <= a.num_tokens for a in load.answers)


def test_a_server_that_ends_says_why() -> None:
    code = "import sys; print('no such model'); sys.exit(3)"
    with pytest.raises(StateError, match="exit code 3: no such model"), running_process([sys.executable, "-c", code]):
        pass


def test_a_server_process_is_awaited_and_ended() -> None:
    code = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
started = time.monotonic()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() - started > 0.3 else 503)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
    with running_process([sys.executable, "-c", code]) as base_url:
        assert asyncio.run(_is_there(base_url))
    assert not asyncio.run(_is_there(base_url))


async def _is_there(base_url: str) -> bool:
    from paceline.bench.serve.client import Service

    async with connected(base_url) as client:
        service = Service(base_url, "openai", "/v1/completions", "m")
        load = await run_load(client, service, [ServePrompt("x", "x", 1)], LoadPlan())
    return load.answers[0].status is not None  # 501: it has no POST


VLLM_KEYS = {
    *("date", "backend", "model_id", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration"),
    *("completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput"),
    *("output_throughput", "total_token_throughput", "max_concurrent_requests"),
    *(
        f"{word}_{name}_ms"
        for name in ("ttft", "tpot", "itl", "e2el", "client_queue_time")
        for word in ("mean", "median", "std", "p99")
    ),
    *("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts"),
    *("errors", "spec_decode_acceptance_rate", "spec_decode_acceptance_length", "spec_decode_num_drafts"),
    *("spec_decode_draft_tokens", "spec_decode_accepted_tokens", "spec_decode_per_position_acceptance_rates"),
}
