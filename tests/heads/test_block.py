"""Block heads in their target: same bytes whatever they are, the context kept right, native trees as in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from exactness.decoding import decode
from exactness.models import VOCAB
from exactness.subjects import Subject, job
from heads.making import block_head
from paceline.drafters._block.native import NativeTrees
from paceline.drafters._block.trees import SlotTrees
from paceline.drafters.block import BlockDrafter
from paceline.engine.request import DraftLimits, Environment
from paceline.errors import ConfigError, ModelError
from paceline.model.hosting import tap_at
from paceline.native.library import library

KINDS: dict[str, dict[str, Any]] = {
    "bigram": {"transition": "vanilla"},
    "gated": {"transition": "gated", "rank": 3, "block_size": 2},
    "recurrent": {"layers": 2},
    "causal": {"is_causal": True, "family": "llama", "taps": (2, 0, 1)},
    "no anchor": {"predicts_from_anchor": False, "rank": 0},
    "few tokens": {"draft_vocab_size": VOCAB // 3, "block_size": 9},
    "behind the norm": {"taps": (3,), "block_size": 3},
}
JOBS = [job(length, 5, 23, **options) for length, options in ((1, {}), (64, {"temperature": 0.9}), (71, {}), (130, {}))]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made = Subject(request.param)
    yield made
    made.llm.close()


def attached(subject: Subject, **how: Any) -> BlockDrafter:
    drafter = BlockDrafter(path=block_head(subject.model, **how))
    drafter.attach(Environment(None, VOCAB, "cpu", host=subject.target.host))
    return drafter


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_depends_on_a_head(subject: Subject, kind: str) -> None:
    drafter = attached(subject, **KINDS[kind])
    found = decode(subject.target, JOBS, drafter, 9 * len(JOBS))
    assert subject.plain.differences(JOBS, found) == []
    again = decode(subject.target, JOBS, drafter, 3 * len(JOBS))  # pages of prompts are found again
    assert subject.plain.differences(JOBS, again) == []
    drafter.close()


@pytest.mark.parametrize("kind", ["bigram", "recurrent", "causal", "few tokens"])
def test_native_trees_are_those_of_python(subject: Subject, kind: str) -> None:
    if library() is None:
        pytest.skip("there are no kernels")
    drafter = attached(subject, **KINDS[kind])
    trees, guest = drafter._trees, drafter._guest
    assert isinstance(trees, NativeTrees)
    assert guest is not None
    in_python = SlotTrees(guest, trees.d2t)
    seen = 0

    def compare(engine: Any) -> None:
        nonlocal seen
        for request in engine.scheduler.decoding:
            sequence, limits = subject.target.sequence(request), DraftLimits(17, max_depth=1 + seen % 9)
            if sequence is None or not guest.has_room(sequence):
                continue
            one, other = (t.grow([(request, sequence, limits)], drafter._weights, "x")[0] for t in (trees, in_python))
            assert (one.tokens, one.parents, one.buckets) == (other.tokens, other.parents, other.buckets)
            assert np.allclose(one.scores, other.scores, rtol=1e-4)
            seen += len(one)

    decode(subject.target, JOBS, drafter, 5 * len(JOBS), on_step=compare)
    assert seen > 300


def test_the_context_is_what_the_texts_hidden_states_make(subject: Subject) -> None:
    """After prompts in chunks, drafted steps, moved rows and pages found again: keys of each position, in its slot."""
    drafter, head = attached(subject, taps=(2, 1), layers=2), block_head(subject.model, taps=(2, 1), layers=2)
    head.bind(subject.model)
    guest = drafter._guest
    assert guest is not None
    seen = 0

    def compare(engine: Any) -> None:
        nonlocal seen
        for request in engine.scheduler.decoding:
            sequence = subject.target.sequence(request)
            if sequence is None or sequence.length % 3 or seen > 400:
                continue
            assert sequence.has_guests
            wanted = _context(subject, head, request.tokens[: sequence.length])
            slots = torch.tensor(sequence.slots(np.arange(sequence.length)))
            for layer, (keys, values) in zip(guest.kept, wanted, strict=True):
                for ours, theirs in ((layer.keys, keys), (layer.values, values)):
                    assert torch.allclose(ours[slots // 64, :, slots % 64], theirs, atol=2e-4, rtol=2e-3)
            seen += sequence.length

    decode(subject.target, [*JOBS, *JOBS], drafter, 8 * len(JOBS), on_step=compare)
    assert seen > 400


def _context(subject: Subject, head: Any, tokens: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """From the caller's own model."""
    taps: dict[int, torch.Tensor] = {}
    removers = [tap_at(subject.model, tap, lambda h, tap=tap: taps.__setitem__(tap, h)) for tap in head.config.taps]
    with torch.inference_mode():
        subject.model(input_ids=torch.tensor([tokens]), use_cache=False)
        positions = torch.arange(len(tokens))[None]
        kept = head.context([taps[tap] for tap in head.config.taps], positions)
    for remover in removers:
        remover.remove()
    return kept


@pytest.mark.parametrize("spoilt", ["nan", "infinite", "huge"])
def test_a_spoilt_head_changes_nothing(subject: Subject, spoilt: str) -> None:
    head = block_head(subject.model)
    value = {"nan": float("nan"), "infinite": float("inf"), "huge": 3e38}[spoilt]
    with torch.no_grad():
        head.layers[0].mlp.down_proj.weight[5] = value
        head.fc.weight[7, 3] = value
    drafter = BlockDrafter(path=head)
    drafter.attach(Environment(None, VOCAB, "cpu", host=subject.target.host))
    found = decode(subject.target, JOBS, drafter, 6 * len(JOBS))
    assert subject.plain.differences(JOBS, found) == []


def test_what_does_not_go_together_is_refused(subject: Subject) -> None:
    host = subject.target.host
    with pytest.raises(ConfigError, match="hosts no heads"):
        BlockDrafter(path=block_head(subject.model)).attach(Environment(None, VOCAB, "cpu"))
    with pytest.raises(ConfigError, match="path is None"):
        BlockDrafter().attach(Environment(None, VOCAB, "cpu", host=host))
    with pytest.raises(ModelError, match=r"tap 9 is asked for; allowed for .*: 0 to 3"):
        BlockDrafter(path=block_head(subject.model, taps=(1, 9))).attach(Environment(None, VOCAB, "cpu", host=host))
    wide = block_head(subject.model)
    wide.config.layers.hidden_size += 1
    with pytest.raises(ModelError, match="wide and brings no embedding"):
        BlockDrafter(path=wide).attach(Environment(None, VOCAB, "cpu", host=host))


def test_who_leaves_takes_all_along(subject: Subject) -> None:
    before = len(subject.pool.guests), subject.pool.num_bytes, len(subject.pool._stacks)
    first, second = attached(subject, taps=(0, 1)), attached(subject, taps=(1, 2), layers=2)
    two = JOBS[1:3]
    assert subject.target.hosted_share > 0.0
    first.close()
    assert subject.plain.differences(two, decode(subject.target, two, second, 9)) == []
    second.close()
    assert (len(subject.pool.guests), subject.pool.num_bytes, len(subject.pool._stacks)) == before
    assert subject.plain.differences(two, decode(subject.target, two)) == []


@pytest.mark.parametrize("native", [True, False])
def test_a_token_that_only_the_transition_knows_is_proposed(subject: Subject, native: bool) -> None:
    """The slots' own logits say nothing; each token is followed by the one that a bigram table names."""
    head = block_head(subject.model, transition="vanilla", rank=VOCAB)
    follower = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        head.norm.weight.zero_()
        head.markov_head.markov_w1.weight.copy_(torch.eye(VOCAB))
        head.markov_head.markov_w2.weight.copy_(20.0 * torch.eye(VOCAB)[follower].T)
    drafter = BlockDrafter(path=head)
    drafter.attach(Environment(None, VOCAB, "cpu", host=subject.target.host))
    guest = drafter._guest
    assert guest is not None
    trees = drafter._trees if native else SlotTrees(guest, None)
    assert trees is not None
    seen = 0

    def look(engine: Any) -> None:
        nonlocal seen
        for request in engine.scheduler.decoding:
            sequence = subject.target.sequence(request)
            if sequence is None or not guest.has_room(sequence):
                continue
            [tree] = trees.grow([(request, sequence, DraftLimits(7))], drafter._weights, "x")
            wanted, token = [], request.tokens[-1]
            for _ in range(7):
                token = int(follower[token])
                wanted.append(token)
            assert list(tree.tokens) == wanted
            seen += 1

    decode(subject.target, [job(40, 1, 6)], drafter, 3, on_step=look)
    assert seen > 2
    drafter.close()
