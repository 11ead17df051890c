"""A block head that learns from its target: what it is told is what happened, and no byte depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exactness.decoding import Job, decode
from exactness.models import VOCAB
from exactness.subjects import Subject, job
from heads.making import block_head
from paceline.drafters.block import BlockDrafter
from paceline.engine.request import WARM_UP, Environment, Hints, Request
from paceline.heads.block import BlockHead
from paceline.learning.anchors import Anchor, Batch
from paceline.learning.scoring import Overlay, accepted
from paceline.learning.weights import Delta

KINDS: dict[str, dict[str, Any]] = {
    "bigram": {"transition": "vanilla"},
    "gated": {"transition": "gated", "rank": 3, "block_size": 4},
    "recurrent": {"layers": 2},
    "no anchor": {"predicts_from_anchor": False},
    "few tokens": {"draft_vocab_size": VOCAB // 3, "block_size": 5},
}
OPTIONS: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}),
    (70, {"temperature": 0.9}),
    (71, {}),
    (20, {"temperature": 0.5}),
)
JOBS = [job(length, 5, 29, **options) for length, options in OPTIONS]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    made = Subject("llama")
    yield made
    made.llm.close()


def attached(subject: Subject, head: BlockHead) -> BlockDrafter:
    drafter = BlockDrafter(path=head)
    drafter.attach(Environment(None, VOCAB, "cpu", host=subject.target.host))
    if drafter._observer is not None:
        drafter._observer.learning.allowance.earn(1e9)
    return drafter


def observed(
    subject: Subject, drafter: BlockDrafter, jobs: list[Job] = JOBS
) -> tuple[list[Anchor], dict[int, Request]]:
    """The anchors of some jobs, and their requests; the bytes are those of plain decoding."""
    anchors, requests = [], {}
    assert drafter._observer is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafter._observer.learning, "observe", anchors.append)
        found = decode(
            subject.target,
            JOBS,
            drafter,
            9 * len(JOBS),
            on_step=lambda engine: requests.update({one.id: one for one in engine.scheduler.decoding}),
        )
    assert subject.plain.differences(JOBS, found) == []
    return anchors, requests


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_say_what_happened(subject: Subject, kind: str) -> None:
    drafter = attached(subject, block_head(subject.model, **KINDS[kind]))
    anchors, requests = observed(subject, drafter)
    head, slots = drafter._pupil, KINDS[kind].get("block_size", 7) - ("anchor" in kind)
    assert head is not None
    assert drafter._trees is not None
    d2t = drafter._trees.d2t
    assert len(anchors) > 10
    for anchor in anchors:
        tokens = requests[anchor.request].tokens
        end = anchor.position + 1 + len(anchor.before)
        assert anchor.is_sound
        assert len(anchor.before) == slots or end >= len(tokens) - 1  # nobody drafts where one token is left
        assert anchor.before.tolist() == tokens[anchor.position : end - 1]
        ids = anchor.ids if d2t is None else d2t[anchor.ids]
        for slot, place in enumerate(anchor.came.tolist()):
            came = tokens[anchor.position + 1 + slot]
            assert ids[slot, place] == came if place >= 0 else came not in ids[slot]
        law = _law(subject, tokens[: end - 1], anchor.temperature)[anchor.position :]
        assert np.allclose(np.take_along_axis(law, ids, 1), anchor.target, atol=1e-3)


def _law(subject: Subject, tokens: list[int], temperature: float) -> np.ndarray:
    """(tokens, V) the target's, by the caller's own model."""
    with torch.inference_mode():
        logits = subject.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()
    return (logits / temperature).softmax(-1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scored_is_what_was_drafted(subject: Subject, kind: str) -> None:
    """The first draft of a tree is the best of its anchor's first slot, and so on down the path of the best."""
    drafter = attached(subject, block_head(subject.model, **KINDS[kind]))
    begun: dict[tuple[int, int], list[int]] = {}
    real = drafter.propose

    def propose(requests: Any, limits: Any) -> Any:
        trees = real(requests, limits)
        for request, tree in zip(requests, trees, strict=True):
            path, node = [], -1
            while node in tree.parents:
                node = tree.parents.index(node)  # the best child is popped first
                path.append(tree.tokens[node])
            begun[request.id, len(request.tokens) - 1] = path
        return trees

    drafter.propose = propose  # type: ignore[method-assign]
    anchors, requests = observed(subject, drafter)
    assert drafter._pupil is not None
    own = drafter._pupil.own
    counts = []
    for anchor in anchors:
        batch = Batch.of([anchor])
        count = int(accepted(batch, Overlay(own, Delta.nothing(own)).scores(batch))[0])
        path = begun[anchor.request, anchor.position]
        tokens = requests[anchor.request].tokens[anchor.position + 1 :][: len(anchor.before)]
        are_right = [ours == theirs for ours, theirs in zip(path, tokens, strict=False)]
        right = [*are_right, False].index(False)
        assert count == right or right == len(path) < count  # a tree may stop before the block does
        counts.append(count)
    assert max(counts) > 0 or kind == "few tokens"


def test_it_learns_and_no_byte_changes(subject: Subject) -> None:
    """A random head of a random target: its transition learns what comes after what, and then drafts."""
    head = block_head(subject.model, transition="vanilla", rank=16, block_size=5)
    with torch.no_grad():
        head.norm.weight.zero_()  # it says nothing, and its drafts are the noise alone
    drafter = attached(subject, head)
    jobs = [job(9, seed, 60, temperature=0.7) for seed in range(6)]
    assert drafter._observer is not None
    learning = drafter._observer.learning
    first = sum(sum(trace.accepted) for trace in decode(subject.target, jobs, drafter, 4 * len(jobs)))
    for _ in range(12):
        decode(subject.target, jobs, drafter, 4 * len(jobs))
        while drafter.rest():
            pass
        if learning.counts["promotions"]:
            break
    assert learning.counts["promotions"] > 0
    found = decode(subject.target, jobs, drafter, 4 * len(jobs))
    assert subject.plain.differences(jobs, found) == []
    assert sum(sum(trace.accepted) for trace in found) > 1.1 * first


def test_weights_of_one_tenant_draft_for_it_alone(subject: Subject) -> None:
    drafter = attached(subject, block_head(subject.model, **KINDS["bigram"]))
    pupil = drafter._pupil
    assert pupil is not None
    pupil.install("ann", replace(pupil.own, w2=pupil.own.w2 * np.float32(-3.0)))
    seen: dict[str, list[object]] = {}
    trees = drafter._trees
    assert trees is not None
    real = trees.grow

    def grow(asked: Any, weights: Any, source: str) -> Any:
        for request, _, _ in asked:
            seen.setdefault(request.hints.tenant, []).append(weights)
        return real(asked, weights, source)

    trees.grow = grow  # type: ignore[method-assign]
    tenants = ("ann", "bob", "ann", "")
    real_request = Job.request

    def request(self: Job, *args: Any) -> Request:
        made = real_request(self, *args)
        made.hints = Hints(tenant=tenants[JOBS.index(self)])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "request", request)
        found = decode(subject.target, JOBS, drafter, 9 * len(JOBS))
    assert subject.plain.differences(JOBS, found) == []
    assert {tenant: {id(one) for one in weights} for tenant, weights in seen.items()} == {
        "ann": {id(pupil.weights("ann"))},
        "bob": {id(pupil.own)},
        "": {id(pupil.own)},
    }


def test_what_cannot_or_must_not_learn_does_not(subject: Subject) -> None:
    environment = Environment(None, VOCAB, "cpu", host=subject.target.host)
    for head, learn in ((block_head(subject.model, rank=0), True), (block_head(subject.model), False)):
        drafter = BlockDrafter(path=head, learn=learn)
        drafter.attach(environment)
        assert drafter._observer is None
        assert not drafter.rest()
        assert subject.plain.differences(JOBS, decode(subject.target, JOBS, drafter, 9 * len(JOBS))) == []
    drafter = attached(subject, block_head(subject.model))
    request = JOBS[0].request(subject.target)
    request.hints = Hints(tenant=WARM_UP)
    drafter.start(request)
    assert drafter._observer is not None
    assert not drafter._observer.wants(request)
