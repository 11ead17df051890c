"""Streams cut anywhere, comments, errors: what an answer is made of. Times and counts against cases worked by hand."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.bench.serve.answer import CHUNKS, LOGPROBS, USAGE, Answer
from paceline.bench.serve.counters import Counters, read_counters
from paceline.bench.serve.schedule import arrivals
from paceline.bench.serve.sse import EventParser

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(st.lists(st.tuples(TEXTS, LINE_ENDS), min_size=1, max_size=5), st.lists(st.integers(1, 7), max_size=60))
def test_events_do_not_depend_on_where_bytes_are_cut(events: list[tuple[str, str]], cuts: list[int]) -> None:
    """Texts hold what str.splitlines cuts at, and characters of several bytes."""
    raw = "".join(f": ping{end}{end}id: 7{end}data: {json.dumps(t, ensure_ascii=False)}{end}{end}" for t, end in events)
    rest, parser, found = (raw + ": end\n").encode(), EventParser(), []
    for cut in cuts:
        found += parser.feed(rest[:cut])
        rest = rest[cut:]
    assert [json.loads(data) for data in found + parser.feed(rest)] == [text for text, _ in events]


def test_lines_of_one_event_are_joined_and_an_unfinished_one_is_held() -> None:
    parser = EventParser()
    assert parser.feed(b"data:a\ndata: b\n") == []
    assert parser.feed(b"\ndata: [DONE]\n\n:\n\ndata: never") == ["a\nb", "[DONE]"]


def answer(*events: dict[str, Any]) -> Answer:
    """Sent at 10 s, an event at each second from 11 on."""
    made = Answer("story", 10.0, 10.0)
    for second, event in enumerate(events, start=11):
        made.take(event, float(second))
    return made


def chunk(text: str, total: int | None = None, **more: Any) -> dict[str, Any]:
    usage = {} if total is None else {"usage": {"prompt_tokens": 4, "completion_tokens": total}}
    return {"choices": [{"text": text, **more}], **usage}


def test_times_by_hand() -> None:
    """A role at 11, 2 tokens at 12, 3 at 13, nothing at 14, 1 at 15, the end at 16: 6 tokens, usage told at 17."""
    found = answer(
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "ab"}}], "usage": {"completion_tokens": 2}},
        {"choices": [{"delta": {"content": "cde"}}], "usage": {"completion_tokens": 5}},
        {"choices": [{"delta": {"content": ""}}], "usage": {"completion_tokens": 5}},
        {"choices": [{"delta": {"content": "f"}}], "usage": {"completion_tokens": 6}},
        {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": {"completion_tokens": 6}},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 6}},
    )
    assert (found.ttft, found.e2el, found.tpot) == (2.0, 6.0, 4.0 / 5)
    assert found.itls == [1.0, 2.0]
    assert found.token_gaps == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2.0])
    assert (found.num_tokens, found.prompt_tokens, found.finish_reason) == (6, 9, "length")
    assert "".join(found.texts) == "abcdef"
    assert found.token_source == USAGE
    assert [found.tokens_until(at) for at in (11.9, 12.0, 14.0, 99.0)] == [0, 2, 5, 6]


def test_a_chunk_without_new_tokens_adds_its_wait_to_the_next() -> None:
    found = answer(chunk("a", 1), chunk("b", 1), chunk("c", 2))
    assert found.itls == [1.0, 1.0]
    assert found.token_gaps == [2.0]


def test_tokens_of_log_probabilities_wait_for_their_text() -> None:
    """Half a character has no text: its token counts with the next one."""
    two = {"logprobs": {"tokens": ["a", "b"]}}
    found = answer(chunk("ab", None, **two), chunk("", None, **two), chunk("é", None, **two), chunk("", None))
    assert [count for _, count in found.chunks] == [2, 4]
    assert found.token_gaps == [0.5] * 4
    assert found.token_source == LOGPROBS


def test_without_any_count_a_chunk_is_a_token_and_the_last_usage_corrects_throughput() -> None:
    found = answer(chunk("a b"), chunk("c d"), {"choices": [], "usage": {"completion_tokens": 4}})
    assert (found.token_source, found.token_gaps, found.tpot) == (CHUNKS, [1.0], 1 / 3)
    assert found.tokens_until(11.0) == 2.0


def test_one_token_has_no_time_per_token() -> None:
    assert answer(chunk("a", 1)).tpot is None
    assert answer().ttft is None
    assert answer().token_gaps == []


@pytest.mark.parametrize("error", [{"message": "out of pages", "code": 500}, "out of pages"], ids=["object", "text"])
def test_an_error_event_is_kept(error: Any) -> None:
    assert answer(chunk("a", 1), {"error": error}).error == "out of pages"


def test_calls_and_reasoning_are_text() -> None:
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}}]}
    found = answer({"choices": [{"delta": {"reasoning": "hm"}}]}, call)
    assert len(found.chunks) == 2


# when requests are sent


@pytest.mark.parametrize(("burstiness", "deviation"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5), (math.inf, 0.0)])
def test_gaps_have_the_mean_and_deviation_of_their_distribution(burstiness: float, deviation: float) -> None:
    """A gamma distribution of shape b: the deviation is 1 / sqrt(b) of the mean, and the mean is 1 / rate."""
    due = arrivals(20_000, 50.0, burstiness, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 50, rel=1e-3)
    assert math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) * 50 == pytest.approx(deviation, abs=0.06)
    assert due == sorted(due)


@given(st.integers(1, 50), st.floats(0.1, 1e3), st.integers(0, 99))
def test_arrivals_end_on_time_and_repeat_by_seed(count: int, rate: float, seed: int) -> None:
    due = arrivals(count, rate, 1.0, seed)
    assert due[-1] == pytest.approx(count / rate)
    assert due == arrivals(count, rate, 1.0, seed)
    assert arrivals(count, math.inf, 1.0, seed) == [0.0] * count


# the server's counters

PAGE = """# HELP vllm:spec_decode_num_drafts_total Drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 10.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 10.0
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{model_name="m"} 80.0
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{model_name="spec_decode_num_drafts_total"} 30.0
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{position="1",model_name="m"} 10.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{position="0",model_name="m"} 20.0
# TYPE paceline:engine_busy_seconds_total counter
paceline:engine_busy_seconds_total{model_name="m"} 1.5
# TYPE other gauge
other 3
"""


def test_acceptance_is_that_of_the_run_alone() -> None:
    before = Counters({"vllm:spec_decode_num_drafts_total": 10.0}, {0: 10.0})
    found = read_counters(PAGE).since(before).speculation()
    assert found == {
        "spec_decode_acceptance_rate": pytest.approx(37.5),
        "spec_decode_acceptance_length": 4.0,
        "spec_decode_num_drafts": 10,
        "spec_decode_draft_tokens": 80,
        "spec_decode_accepted_tokens": 30,
        "spec_decode_per_position_acceptance_rates": [1.0, 1.0],
    }
    assert read_counters(PAGE).busy_seconds == 1.5


def test_a_server_that_does_not_draft_has_no_acceptance() -> None:
    assert read_counters("").speculation() == {}
    assert read_counters("").busy_seconds is None


def test_a_page_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="Prometheus"):
        read_counters("<html>no such page</html>")
