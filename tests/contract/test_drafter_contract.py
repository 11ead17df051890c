"""What every registered drafter must keep, run on the bundled pair. A new drafter is covered by being registered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import paceline
from paceline.drafters import available
from paceline.types import DraftTree, StepOutcome

NAMES = sorted(available())
PROMPTS = [
    "Once upon a time, there was a little dog. The little dog had a red ball.",
    'Command: play jazz\nJSON: {"intent": "PlayMusic", "slots": {"genre": "jazz"}}\nCommand: play jazz\nJSON:',
    "O",
]


class Watcher:
    """Stands in front of a drafter and checks what passes through its port."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name = inner, inner.name
        self.open: set[int] = set()
        self.num_proposed = 0

    def attach(self, environment: Any) -> None:
        pass  # the inner drafter is attached already

    def start(self, request: Any) -> None:
        assert request.id not in self.open
        self.open.add(request.id)
        self.inner.start(request)

    def propose(self, requests: Sequence[Any], budgets: Sequence[int]) -> list[DraftTree]:
        before = [list(request.tokens) for request in requests]
        trees = self.inner.propose(requests, budgets)
        assert [list(request.tokens) for request in requests] == before, "a drafter may not change a request"
        for tree, budget in zip(trees, budgets, strict=True):
            assert len(tree) <= budget
            assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
            assert all(0 <= score <= 1 for score in tree.scores)
            assert set(tree.sources) <= {self.name}
            edges = list(zip(tree.parents, tree.tokens, strict=True))
            assert len(set(edges)) == len(edges), "a node is proposed once"
            self.num_proposed += len(tree)
        return trees

    def observe(self, outcome: StepOutcome) -> None:
        assert outcome.request.id in self.open
        self.inner.observe(outcome)

    def finish(self, request: Any) -> None:
        self.open.discard(request.id)
        self.inner.finish(request)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(scope="module", params=NAMES)
def watched(request: pytest.FixtureRequest, bundled: paceline.LLM) -> Watcher:
    return Watcher(bundled._drafter(request.param))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_of_unequal_lengths_gives_the_bytes_of_plain_decoding(
    bundled: paceline.LLM, watched: Watcher, temperature: float
) -> None:
    options = {"max_tokens": 45, "temperature": temperature, "seed": 11}
    plain = [bundled.generate(p, drafters="none", **options) for p in PROMPTS]
    drafted = bundled.generate(PROMPTS, drafters=[watched], **options)
    assert [o.token_ids for o in drafted] == [o.token_ids for o in plain]
    assert [[t.logprob for t in o.tokens] for o in drafted] == [[t.logprob for t in o.tokens] for o in plain]
    assert all(d["num_failures"] == 0 for o in drafted for d in o.stats["drafters"].values())
    assert watched.num_proposed > 0
    assert not watched.open


def test_one_token_is_never_drafted(bundled: paceline.LLM, watched: Watcher) -> None:
    before = watched.num_proposed
    bundled.generate(PROMPTS[0], max_tokens=1, drafters=[watched])
    assert watched.num_proposed == before


def test_nothing_is_kept_after_the_end_or_an_abort(bundled: paceline.LLM, watched: Watcher) -> None:
    stream = bundled.stream(PROMPTS[0], max_tokens=60, drafters=[watched])
    for _ in range(7):
        next(stream)
    stream.close()
    assert stream.output.finish_reason == "abort"
    bundled.generate(PROMPTS[1], max_tokens=20, drafters=[watched])
    assert not watched.open
    kept = [v for v in vars(watched.inner).values() if isinstance(v, dict)]
    assert not any(kept), "per-request state must go with the request"


def test_finishing_a_request_that_was_never_started_does_nothing(watched: Watcher) -> None:
    class Stranger:
        id = -1

    watched.inner.finish(Stranger())
