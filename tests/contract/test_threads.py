"""Threads may share an `LLM`: each gets the tokens that it would have got alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import paceline


def test_threads_get_what_they_would_get_alone(bundled: paceline.LLM) -> None:
    prompts = ["Once upon a time", "The cat", "Question: Tom has 5 apples.", "Lily said", "ROMEO:"]
    options = {"max_tokens": 37, "temperature": 0.9, "seed": 5}
    alone = [bundled.generate(p, **options) for p in prompts]
    with ThreadPoolExecutor(len(prompts)) as threads:
        together = list(threads.map(lambda p: bundled.generate(p, **options), prompts))
    assert [o.token_ids for o in together] == [o.token_ids for o in alone]
    assert [o.text for o in together] == [o.text for o in alone]
    assert max(o.stats.num_steps for o in together) <= 37


def test_threads_that_stream_share_the_steps(bundled: paceline.LLM) -> None:
    streams = [bundled.stream(p, max_tokens=25) for p in ("Once upon a time", "The dog")]
    with ThreadPoolExecutor(2) as threads:
        texts = list(threads.map(lambda s: "".join(t.text for t in s), streams))
    assert texts == [bundled.generate(p, max_tokens=25).text for p in ("Once upon a time", "The dog")]
