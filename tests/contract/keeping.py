"""What every drafter must keep, whatever its options: a class of tests, for each drafter to be put through.

A drafter that works with its default options is put through it by being registered (test_drafter_contract.py); one that
does not has a subclass with a fixture `spec` beside its own tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

import paceline
from paceline.engine.request import DraftLimits, StepOutcome
from paceline.engine.tree import DraftTree

STORY = "Once upon a time, there was a little dog. The little dog had a red ball."
PROMPTS = [
    STORY,
    'Command: play jazz\nJSON: {"intent": "PlayMusic", "slots": {"genre": "jazz"}}\nCommand: play jazz\nJSON:',
    "O",
]
SCHEMA = {"type": "object", "properties": {"intent": {"type": "string"}}, "required": ["intent"]}
# What may be asked beside a prompt, so that every drafter finds something to go by.
SCENES: dict[str, dict[str, Any]] = {
    "open": {"prediction": STORY},
    "structured": {"response_format": {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}}},
}


def asked(temperature: float, scene: str) -> dict[str, Any]:
    return {"max_tokens": 45, "temperature": temperature, "seed": 11, **SCENES[scene]}


@cache
def plain_outputs(llm: paceline.LLM, temperature: float, scene: str) -> list[paceline.Output]:
    """What every drafter's outputs are compared with."""
    return [llm.generate(prompt, drafters="none", **asked(temperature, scene)) for prompt in PROMPTS]


class Watcher:
    """Stands in front of a drafter and checks what passes through its port."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name = inner, inner.name
        self.reads_hidden_states = getattr(inner, "reads_hidden_states", False)
        self.open: set[int] = set()
        self.seen: set[int] = set()
        self.num_proposed = 0

    def attach(self, environment: Any) -> None:
        pass  # the inner drafter is attached already

    def start(self, request: Any) -> bool:
        assert request.id not in self.open
        self.open.add(request.id)
        self.seen.add(request.id)
        return self.inner.start(request)

    def propose(self, requests: Sequence[Any], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        before = [list(request.tokens) for request in requests]
        trees = self.inner.propose(requests, limits)
        self._check(trees, limits)
        assert [list(request.tokens) for request in requests] == before, "a drafter may not change a request"
        return trees

    def _check(self, trees: Sequence[DraftTree], limits: Sequence[DraftLimits]) -> None:
        for tree, limit in zip(trees, limits, strict=True):
            assert len(tree) <= limit.max_nodes
            assert max(tree.depths, default=0) <= limit.max_depth
            assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
            assert all(0 <= score <= 1 for score in tree.scores)
            assert set(tree.sources) <= {self.name}
            edges = list(zip(tree.parents, tree.tokens, strict=True))
            assert len(set(edges)) == len(edges), "a node is proposed once"
            self.num_proposed += len(tree)

    def observe(self, outcome: StepOutcome) -> None:
        assert outcome.request.id in self.open
        self.inner.observe(outcome)

    def finish(self, request: Any) -> None:
        self.open.discard(request.id)
        self.inner.finish(request)

    def close(self) -> None:
        self.inner.close()


class DrafterContract:
    """The tests. `forced` is the bundled pair under a pacer that always asks."""

    @pytest.fixture
    def watched(self, forced: paceline.LLM, spec: str) -> Watcher:
        return Watcher(forced._runtime.resolve(spec)[0])

    @pytest.mark.parametrize("scene", SCENES)
    @pytest.mark.parametrize("temperature", [0.0, 0.9])
    def test_a_batch_of_unequal_lengths_gives_the_bytes_of_plain_decoding(
        self, forced: paceline.LLM, watched: Watcher, temperature: float, scene: str
    ) -> None:
        plain = plain_outputs(forced, temperature, scene)
        drafted = forced.generate(PROMPTS, drafters=[watched], **asked(temperature, scene))
        assert [o.token_ids for o in drafted] == [o.token_ids for o in plain]
        assert [[t.logprob for t in o.tokens] for o in drafted] == [[t.logprob for t in o.tokens] for o in plain]
        assert all(d.num_failures == 0 for o in drafted for d in o.stats.drafters.values())
        assert not watched.open

    def test_it_drafts(self, forced: paceline.LLM, watched: Watcher) -> None:
        for scene in SCENES.values():
            for _ in range(2):  # the second time for those who learn from the first
                forced.generate(STORY, max_tokens=30, drafters=[watched], **scene)
        assert watched.num_proposed > 0

    def test_one_token_is_never_drafted(self, forced: paceline.LLM, watched: Watcher) -> None:
        before = watched.num_proposed
        forced.generate(STORY, max_tokens=1, drafters=[watched], **SCENES["open"])
        assert watched.num_proposed == before

    def test_nothing_is_kept_after_the_end_or_an_abort(self, forced: paceline.LLM, watched: Watcher) -> None:
        stream = forced.stream(STORY, max_tokens=60, drafters=[watched])
        for _ in range(7):
            next(stream)
        stream.close()
        assert stream.output.finish_reason == "abort"
        forced.generate(PROMPTS[1], max_tokens=20, drafters=[watched])
        assert not watched.open
        kept = [key for value in vars(watched.inner).values() if isinstance(value, dict) for key in value]
        assert not watched.seen & set(kept), "per-request state must go with the request"

    def test_finishing_a_request_that_was_never_started_does_nothing(self, watched: Watcher) -> None:
        class Stranger:
            id = -1

        watched.inner.finish(Stranger())
