"""Losses against what they stand for: brute force, simulation with shared noise, and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paceline.training import losses
from paceline.training.evaluate import accepted
from paceline.training.projecting import log_candidates

ROWS = 5


def laws(seed: int, size: int, sharpness: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, ROWS, size, generator=noise, dtype=torch.float64) * sharpness
    return p.softmax(-1), (0.7 * p + 0.7 * q).softmax(-1)


def brute_force(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in range(len(p))) for i in range(len(p))])


@pytest.mark.parametrize(("seed", "size"), [(0, 2), (1, 7), (2, 23)])
def test_the_chance_of_a_match_is_the_formula(seed: int, size: int) -> None:
    p, q = laws(seed, size)
    wanted = np.stack([brute_force(a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)])
    found = losses.joint(p, q)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)
    total_variation = losses.tv(p, q)
    assert (found.sum(-1) <= 1 - total_variation + 1e-9).all()
    assert (found.sum(-1) >= (1 - total_variation) / (1 + total_variation) - 1e-9).all()
    assert torch.allclose(losses.joint(p, p).sum(-1), torch.ones(ROWS, dtype=p.dtype))


def test_the_chance_of_a_match_is_what_shared_noise_gives() -> None:
    p, q = laws(3, 9)
    noise = np.random.default_rng(0).gumbel(size=(40_000, 9))
    for row, chance, by_token in zip(range(ROWS), losses.joint(p, q).sum(-1), losses.joint(p, q), strict=True):
        first, second = ((np.log(law[row].numpy()) + noise).argmax(-1) for law in (p, q))
        assert np.mean(first == second) == pytest.approx(float(chance), abs=0.012)
        both = np.bincount(first[first == second], minlength=9) / len(noise)
        np.testing.assert_allclose(both, by_token, atol=0.012)


def test_a_token_is_accepted_with_the_chance_that_shared_noise_gives() -> None:
    p, q = laws(4, 9)
    for token in range(9):
        chosen = torch.full((ROWS,), token)
        for heat in (1.0, 0.6):
            a, b = ((law.log() / heat).softmax(-1) for law in (p, q))
            wanted = losses.joint(a, b)[:, token] / a[:, token]
            found = accepted(p.log(), q.log(), torch.full((ROWS,), heat), chosen)
            assert torch.allclose(found, wanted, rtol=1e-5)
        greedy = accepted(p.log(), q.log(), torch.zeros(ROWS), chosen)
        assert greedy.tolist() == (q.argmax(-1) == token).double().tolist()


@pytest.mark.parametrize("name", [*losses.LOSSES, "overlap"])
def test_gradients_are_those_of_the_values(name: str) -> None:
    p, _ = laws(5, 6)
    scores = torch.randn(ROWS, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = losses.LOSSES.get(name, losses.overlap)
    if name in ("lk", "match"):  # their blend is not differentiated
        ends = {"lk": losses.tv, "match": lambda p, q: -losses.match(p, q)}
        loss = ends[name]
    assert torch.autograd.gradcheck(lambda given: loss(p, given.softmax(-1)), (scores,))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_loss_is_least_where_the_laws_are_one(name: str) -> None:
    p, q = laws(6, 6)
    loss = losses.LOSSES[name]
    rest = p[:, -1] if name == "match" else torch.zeros(ROWS)  # lumped, it never matches
    assert (loss(p, q) >= loss(p, p) - 1e-9).all()
    assert (loss(p, p) <= rest + 1e-6).all()


def test_a_later_slot_counts_by_what_depends_on_it() -> None:
    chances = torch.tensor([[0.9, 0.2, 0.5]])
    q = 0.5 * chances + 0.5
    prefix = q.cumprod(-1)[0]
    wanted = torch.stack([prefix.sum(), prefix[1:].sum(), prefix[2]])
    assert torch.allclose(losses.pace(chances)[0], wanted)
    assert torch.allclose(losses.decay(chances), torch.exp(-torch.arange(3) / 4))


def test_slots_beyond_the_text_count_for_nothing() -> None:
    loss = torch.tensor([[1.0, 2.0, 100.0], [3.0, 100.0, 100.0]])
    valid = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    w = torch.exp(torch.tensor(-0.25))
    wanted = (1.0 + 2.0 * w + 3.0) / (2.0 + w)
    assert torch.allclose(losses.weighted(loss, torch.ones(2, 3), valid, "decay"), wanted)


@pytest.mark.parametrize("rank", [0, 3])
def test_candidates_are_normalised_over_all_tokens(rank: int) -> None:
    noise = torch.Generator().manual_seed(2)
    draw = lambda *size: torch.randn(*size, generator=noise)  # noqa: E731
    states, table, tail = draw(7, 4 + rank).requires_grad_(), draw(11, 4), draw(11, rank).requires_grad_(rank > 0)
    ids = torch.stack([torch.randperm(11, generator=noise)[:5] for _ in range(7)])
    weight = draw(7, 5)

    def plain() -> torch.Tensor:
        return (states @ torch.cat([table, tail], 1).T).log_softmax(-1).gather(-1, ids)

    found = log_candidates(states, table, tail, ids)
    assert torch.allclose(found, plain(), atol=1e-6)
    wanted = torch.autograd.grad((plain() * weight).sum(), [states, tail][: 1 + (rank > 0)])
    given = torch.autograd.grad((found * weight).sum(), [states, tail][: 1 + (rank > 0)])
    for one, other in zip(given, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
