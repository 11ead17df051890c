"""A transition learns from anchors, all kinds of it: quickly, within its memory, without forgetting, and repeatably."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.learning.world import HIDDEN, RANK, SLOTS, Traffic, V, domain, tokens_per_step, transition, with_weights

from paceline.heads.transitions import TRANSITIONS, Transition
from paceline.heads.weights import Weights
from paceline.learning import learner as module
from paceline.learning.anchors import Batch, Memory
from paceline.learning.learner import Learner, loss
from paceline.learning.scoring import Overlay, accepted, log_law, overlaps
from paceline.learning.weights import Delta, Watch, laid_over

A, B = domain(1), domain(2)


def laid(own: Transition, delta: Delta) -> Transition:
    return with_weights(own, laid_over(own, delta))


def taught(own: Transition, traffic: Traffic, count: int, learner: Learner | None = None) -> Learner:
    learner = learner or Learner(own)
    for anchor in traffic.anchors(count):
        learner.observe(anchor)
        while learner.is_hungry:
            learner.step()
    return learner


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_it_learns_what_the_target_says(kind: str) -> None:
    own = transition(A, kind)
    traffic = Traffic(B, A, 1, own)
    later, before = Traffic(B, A, 2, own).anchors(200), own.state_dict()
    delta = taught(own, traffic, 150).delta()
    assert tokens_per_step(laid(own, delta), later) > 1.3 * tokens_per_step(own, later)
    assert all(torch.equal(before[name], weight) for name, weight in own.state_dict().items())
    assert bool(delta.gate.any()) == (kind != "vanilla")


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_what_is_laid_over_scores_as_what_is_learnt(kind: str) -> None:
    own = transition(A, kind)
    batch = Batch.of(Traffic(B, A, 1, own).anchors(20))
    delta = taught(own, Traffic(B, A, 3, own), 20).delta()
    made = laid(own, delta)
    shifted = made.features(torch.zeros(HIDDEN)) - own.features(torch.zeros(HIDDEN))
    assert not shifted.any()  # what a slot contributes stays what it was
    ours = Overlay(own, delta).scores(batch)
    theirs = Overlay(made, Delta.nothing(made)).scores(batch)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, Overlay(own, Delta.nothing(own)).scores(batch), atol=1e-2)


def test_scores_are_those_of_the_transition_itself() -> None:
    for kind in TRANSITIONS:
        own = transition(A, kind)
        hidden = torch.randn(3, SLOTS, HIDDEN)
        anchors = Traffic(A, A, 4).anchors(3)
        features = own.features(hidden).detach().numpy()
        anchors = [replace(one, features=row) for one, row in zip(anchors, features, strict=True)]
        batch = Batch.of(anchors)
        added = own.biases(hidden, batch.before).gather(-1, batch.ids)
        assert torch.allclose(Overlay(own, Delta.nothing(own)).scores(batch), batch.logits + added, atol=1e-4)


def test_laws_and_overlaps_are_those_by_hand() -> None:
    anchor = replace(
        Traffic(A, A, 5).anchor(0),
        ids=np.array([[1, 2], [3, 4]]),
        came=np.array([1, 0]),
        before=np.array([0, 2]),
        logits=np.log(np.array([[0.5, 0.3], [0.2, 0.4]], np.float32)),
        rest=np.log(np.array([0.2, 0.4], np.float32)),
        target=np.array([[0.1, 0.8], [0.6, 0.4]], np.float32),
        noise=np.array([[0.0, 3.0], [0.0, 0.0]], np.float32),
        features=np.zeros((2, 0), np.float32),
    )
    batch = Batch.of([anchor])
    assert log_law(batch, batch.logits).exp().numpy() == pytest.approx(np.array([[[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]]]))
    assert overlaps(batch, batch.logits).tolist() == [pytest.approx([0.4, 0.6])]
    assert accepted(batch, batch.logits).tolist() == [1]  # the noise decides the first; the second is another


def test_a_head_that_says_what_the_target_does_has_no_loss() -> None:
    anchors = [replace(one, target=np.exp(one.logits)) for one in Traffic(A, A, 6).anchors(4)]
    batch = Batch.of(anchors)
    whole = (batch.logits.exp().sum(-1) + batch.rest.exp()).log().unsqueeze(-1)
    batch = replace(batch, target=(batch.logits - whole).exp())
    assert float(loss(batch, batch.logits)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(batch, batch.logits.flip(-1))) > 0.1


def test_shorter_anchors_are_padded_without_a_trace() -> None:
    own = transition(A)
    one, other = Traffic(A, A, 7).anchors(2)
    arrays = ("before", "came", "ids", "logits", "rest", "features", "target", "noise")
    short = replace(one, **{name: getattr(one, name)[:2] for name in arrays})
    alone, beside = Batch.of([short]), Batch.of([other, short])
    overlay = Overlay(own, Delta.nothing(own))
    assert accepted(beside, overlay.scores(beside))[1] == accepted(alone, overlay.scores(alone))[0]
    shared = overlaps(beside, overlay.scores(beside))[1]
    assert shared.tolist() == pytest.approx([*overlaps(alone, overlay.scores(alone))[0].tolist(), 0.0, 0.0])


def test_what_is_not_seen_for_long_is_not_forgotten() -> None:
    own = transition(A)
    later = Traffic(A, A, 8).anchors(200)
    size = Traffic(A, A, 9).anchor(0).without_noise().num_bytes
    with_history, without = Learner(own, 200 * size), Learner(own, 200 * size)
    without._memory.draw = lambda count: with_history._memory._rng.choices(without._memory._latest, k=count)  # type: ignore[method-assign]
    kept = []
    for learner in (with_history, without):
        taught(own, Traffic(A, A, 9), 150, learner)
        taught(own, Traffic(B, A, 10), 250, learner)
        kept.append(tokens_per_step(laid(own, learner.delta()), later))
    assert kept[0] > 1.1 * kept[1]


def test_the_memory_keeps_to_its_bytes_and_chooses_from_all_of_history() -> None:
    size = Traffic(A, A, 11).anchor(0).without_noise().num_bytes
    memory = Memory(100 * size, seed=1)
    for anchor in Traffic(A, A, 11).anchors(2000):
        memory.add(anchor)
        assert memory.num_bytes <= 100 * size
    assert len(memory) == 100
    numbers = [anchor.request for anchor in memory._history]
    assert 50 < np.mean(numbers) < 110  # of 0 to 162
    drawn = [anchor.request for anchor in memory.draw(1000)]
    assert 400 < sum(number > 161 for number in drawn) < 600
    tiny = Memory(size, seed=1)
    tiny.add(Traffic(A, A, 11).anchor(0))
    assert len(tiny) == 0


def test_the_same_anchors_and_steps_give_the_same_weights() -> None:
    own = transition(A)
    digests = [taught(own, Traffic(B, A, 12), 40).delta().digest() for _ in range(2)]
    assert digests[0] == digests[1]
    assert taught(own, Traffic(B, A, 13), 40).delta().digest() != digests[0]


def test_rows_beyond_the_room_stay_the_heads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLE_BYTES", 5 * RANK * 4)
    delta = taught(transition(A), Traffic(B, A, 14), 30).delta()
    assert len(delta.first_ids) == len(delta.second_ids) == 5


def test_what_is_no_number_is_not_learnt() -> None:
    own = transition(A)
    learner = Learner(own)
    bad = Traffic(B, A, 15).anchor(0)
    learner.observe(replace(bad, logits=np.full_like(bad.logits, np.nan)))
    assert not learner.is_hungry
    with torch.no_grad():
        own.markov_w1.weight[:, 0] = np.inf
    assert taught(own, Traffic(B, A, 15), 10).delta().is_nothing


def test_what_was_learnt_is_read_again_or_refused() -> None:
    own = transition(A, "gated")
    delta = taught(own, Traffic(B, A, 16, own), 30).delta()
    arrays = delta.as_arrays()
    assert Delta.of(arrays, own).digest() == delta.digest()
    other = TRANSITIONS["gated"](V, V, RANK + 1, HIDDEN)
    wrong = (
        {**arrays, "first_ids": np.full_like(arrays["first_ids"], V)},
        {**arrays, "second_rows": np.full_like(arrays["second_rows"], np.nan)},
        {**arrays, "first_ids": arrays["first_ids"][:-1]},
        {**arrays, "gate": arrays["gate"].astype(np.float64)},
        {name: array for name, array in arrays.items() if name != "gate"},
    )
    for one in wrong:
        with pytest.raises(ValueError, match="what was learnt"):
            Delta.of(one, own)
    with pytest.raises(ValueError, match="of another head"):
        Delta.of(arrays, other)


def test_a_flipped_bit_in_memory_is_seen() -> None:
    weights = Weights(np.zeros((3, 1 << 18), np.float32), np.zeros((5, 2), np.float32), np.zeros((0, 2), np.float32))
    for array, place in ((weights.w1, (2, 77)), (weights.w1, (0, 0)), (weights.w2, (4, 1))):
        watch = Watch(weights)
        assert all(watch.look(weights) for _ in range(8))
        array[place] = 1e-30
        assert not all(watch.look(weights) for _ in range(4))
        array[place] = 0.0
    assert not Watch(weights).look(replace(weights, w2=weights.w2[:0]))
