"""A transition learns from anchors, all kinds of it: quickly, within its memory, without forgetting, and repeatably."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from learning.world import HIDDEN, RANK, SLOTS, Traffic, V, domain, tokens_per_step, transition, weights
from paceline.heads.transitions import TRANSITIONS
from paceline.heads.weights import Weights
from paceline.learning import learner as module
from paceline.learning.anchors import Batch, Memory
from paceline.learning.learner import Learner, loss
from paceline.learning.scoring import Overlay, accepted, law, overlaps, scores
from paceline.learning.walking import walk
from paceline.learning.weights import Delta, Watch

A, B = domain(1), domain(2)


def taught(own: Weights, traffic: Traffic, count: int, learner: Learner | None = None) -> Learner:
    learner = learner or Learner(own)
    for anchor in traffic.anchors(count):
        learner.observe(anchor)
        while learner.is_hungry:
            learner.step()
    return learner


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_it_learns_what_the_target_says(kind: str) -> None:
    own, head = weights(A, kind), transition(A, kind)
    later, before = Traffic(B, A, 2, head).anchors(200), own.w1.copy()
    delta = taught(own, Traffic(B, A, 1, head), 150).delta()
    assert tokens_per_step(delta.laid_over(own), later) > 1.3 * tokens_per_step(own, later)
    assert np.array_equal(own.w1, before)
    assert bool(delta.joint.any()) == (kind != "vanilla")


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_what_is_laid_over_scores_as_what_is_learnt(kind: str) -> None:
    own, head = weights(A, kind), transition(A, kind)
    batch = Batch.of(Traffic(B, A, 1, head).anchors(20))
    delta = taught(own, Traffic(B, A, 3, head), 20).delta()
    made = delta.laid_over(own)
    ours, theirs = Overlay(own, delta).scores(batch), Overlay(made, Delta.nothing(made)).scores(batch)
    assert np.allclose(ours, theirs, atol=1e-4)
    assert not np.allclose(ours, Overlay(own, Delta.nothing(own)).scores(batch), atol=1e-2)


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_gradients_are_those_of_pytorch(kind: str) -> None:
    """Of the very modules, through their own formulas, loss included."""
    head = transition(A, kind)
    own = Weights.of(head)
    batch = Batch.of([replace(one, temperature=0.7) for one in Traffic(B, A, 1, head).anchors(9)])
    embedded, rows = (torch.from_numpy(table[ids]) for table, ids in ((own.w1, batch.before), (own.w2, batch.ids)))
    embedded.requires_grad_()
    rows.requires_grad_()
    state, vectors = torch.zeros(9, head.state_size), []
    for slot in range(SLOTS):
        state, vector = head.step(state, embedded[:, slot], torch.from_numpy(batch.features)[:, slot])
        vectors.append(vector)
    score = (torch.from_numpy(batch.logits) + (rows @ torch.stack(vectors, 1)[..., None])[..., 0]) / 0.7
    _loss(batch, score).backward()

    path = walk(own.joint, own.w1[batch.before], batch.features)
    value, of_scores = loss(batch, scores(batch, own.w2[batch.ids], path.vectors))
    added = of_scores / batch.temperature
    of_embedded, of_joint = path.back(np.einsum("nbk,nbkr->nbr", added, own.w2[batch.ids]))
    assert value == pytest.approx(float(_loss(batch, score.detach())), rel=1e-4)
    assert embedded.grad is not None
    assert rows.grad is not None
    assert np.allclose(of_embedded, embedded.grad.numpy(), atol=2e-5)
    assert np.allclose(added[..., None] * path.vectors[:, :, None], rows.grad.numpy(), atol=2e-5)
    if kind != "vanilla":
        name = "gate_proj.weight" if kind == "gated" else "joint_proj.weight"
        whole = head.get_parameter(name).grad
        assert whole is not None
        part = whole[:, -RANK:] if kind == "gated" else whole[:, : 2 * RANK]
        assert np.allclose(of_joint, part.numpy(), atol=2e-5)


def _loss(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    ours = torch.log_softmax(torch.cat([score, torch.from_numpy(batch.rest)[..., None]], -1), -1)
    target = torch.from_numpy(batch.target)
    theirs = torch.cat([target, (1 - target.sum(-1, keepdim=True)).clamp(min=0)], -1)
    divergence = (theirs * (theirs.clamp(min=1e-9).log() - ours)).sum(-1)
    distance = 0.5 * (theirs - ours.exp()).abs().sum(-1)
    share = torch.exp(-3 * (1 - distance.detach()))
    weight = torch.from_numpy(batch.is_slot) * 0.8 ** torch.arange(SLOTS)
    return ((share * divergence + (1 - share) * distance) * weight).sum() / weight.sum()


@pytest.mark.parametrize("kind", TRANSITIONS)
def test_scores_are_those_of_the_transition_itself(kind: str) -> None:
    head = transition(A, kind)
    own, hidden = Weights.of(head), torch.randn(3, SLOTS, HIDDEN)
    features = head.features(hidden).detach().numpy()
    anchors = [replace(one, features=row) for one, row in zip(Traffic(A, A, 4).anchors(3), features, strict=True)]
    batch = Batch.of(anchors)
    added = head.biases(hidden, torch.from_numpy(batch.before)).gather(-1, torch.from_numpy(batch.ids))
    ours = Overlay(own, Delta.nothing(own)).scores(batch)
    assert np.allclose(ours, batch.logits + added.detach().numpy(), atol=1e-4)


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
    assert law(batch, batch.logits) == pytest.approx(np.array([[[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]]]))
    assert overlaps(batch, batch.logits) == pytest.approx(np.array([[0.4, 0.6]]))
    assert accepted(batch, batch.logits).tolist() == [1]  # the noise decides the first; the second is another


def test_a_head_that_says_what_the_target_does_has_no_loss() -> None:
    batch = Batch.of(Traffic(A, A, 6).anchors(4))
    batch = replace(batch, target=law(batch, batch.logits)[..., :-1])
    assert loss(batch, batch.logits)[0] == pytest.approx(0.0, abs=1e-5)
    assert loss(batch, batch.logits[..., ::-1])[0] > 0.1


def test_shorter_anchors_are_padded_without_a_trace() -> None:
    own = weights(A)
    one, other = Traffic(A, A, 7).anchors(2)
    arrays = ("before", "came", "ids", "logits", "rest", "features", "target", "noise")
    short = replace(one, **{name: getattr(one, name)[:2] for name in arrays})
    alone, beside = Batch.of([short]), Batch.of([other, short])
    overlay = Overlay(own, Delta.nothing(own))
    assert accepted(beside, overlay.scores(beside))[1] == accepted(alone, overlay.scores(alone))[0]
    shared = overlaps(beside, overlay.scores(beside))[1]
    assert shared.tolist() == pytest.approx([*overlaps(alone, overlay.scores(alone))[0].tolist(), 0.0, 0.0])


def test_what_is_not_seen_for_long_is_not_forgotten() -> None:
    own = weights(A)
    later = Traffic(A, A, 8).anchors(200)
    size = Traffic(A, A, 9).anchor(0).to_learn_from().num_bytes
    with_history, without = Learner(own, 200 * size), Learner(own, 200 * size)
    without._memory.draw = lambda count: with_history._memory._rng.choices(without._memory._latest, k=count)  # type: ignore[method-assign]
    kept = []
    for learner in (with_history, without):
        taught(own, Traffic(A, A, 9), 150, learner)
        taught(own, Traffic(B, A, 10), 250, learner)
        kept.append(tokens_per_step(learner.delta().laid_over(own), later))
    assert kept[0] > 1.1 * kept[1]


def test_candidates_that_hardly_matter_are_among_the_rest() -> None:
    anchor = Traffic(A, A, 17).anchor(0)
    whole, few = Batch.of([anchor]), Batch.of([anchor.to_learn_from()])
    assert few.ids.shape[-1] == 8 < whole.ids.shape[-1]
    ours, kept = law(whole, whole.logits)[0], law(few, few.logits)[0]
    for slot in range(SLOTS):
        place = [whole.ids[0, slot].tolist().index(i) for i in few.ids[0, slot].tolist()]
        assert kept[slot, :-1] == pytest.approx(ours[slot, place], rel=1e-4)
        left = np.setdiff1d(np.arange(whole.ids.shape[-1]), place)
        assert (ours[slot] + [*whole.target[0, slot], 0])[left].max() <= (kept[slot] + [*few.target[0, slot], 9]).min()
    assert kept.sum(-1) == pytest.approx(1.0)


def test_the_memory_keeps_to_its_bytes_and_chooses_from_all_of_history() -> None:
    size = Traffic(A, A, 11).anchor(0).to_learn_from().num_bytes
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
    own = weights(A)
    digests = [taught(own, Traffic(B, A, 12), 40).delta().digest() for _ in range(2)]
    assert digests[0] == digests[1]
    assert taught(own, Traffic(B, A, 13), 40).delta().digest() != digests[0]


def test_rows_beyond_the_room_stay_the_heads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TABLE_BYTES", 5 * RANK * 4)
    delta = taught(weights(A), Traffic(B, A, 14), 30).delta()
    assert len(delta.first_ids) == len(delta.second_ids) == 5


def test_what_is_no_number_is_not_learnt() -> None:
    own = weights(A)
    anchor = Traffic(B, A, 15).anchor(0)
    assert anchor.is_sound
    for name in ("logits", "target", "rest", "features", "noise"):
        assert name == "features" or not replace(anchor, **{name: getattr(anchor, name) * np.nan}).is_sound
    own.w1[:, 0] = np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        assert taught(own, Traffic(B, A, 15), 10).delta().is_nothing


def test_what_was_learnt_is_read_again_or_refused() -> None:
    own, head = weights(A, "gated"), transition(A, "gated")
    delta = taught(own, Traffic(B, A, 16, head), 30).delta()
    arrays = dict(delta.arrays)
    assert Delta.of(arrays, own).digest() == delta.digest()
    other = Weights.of(TRANSITIONS["gated"](V, V, RANK + 1, HIDDEN))
    wrong = (
        {**arrays, "first_ids": np.full_like(arrays["first_ids"], V)},
        {**arrays, "second_rows": np.full_like(arrays["second_rows"], np.nan)},
        {**arrays, "first_ids": arrays["first_ids"][:-1]},
        {**arrays, "joint": arrays["joint"].astype(np.float64)},
        {name: array for name, array in arrays.items() if name != "joint"},
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
        assert all(watch.look(weights) for _ in range(30))
        array[place] = 1e-30
        assert not all(watch.look(weights) for _ in range(13))
        array[place] = 0.0
    assert not Watch(weights).look(replace(weights, w2=weights.w2[:0]))
