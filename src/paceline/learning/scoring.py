"""What a transition makes of anchors: laws over candidates, overlaps with the target's, tokens that would be accepted.

Shapes are those of `Batch`. A candidate's score is its logit and what the transition adds to it, over the temperature.
"""

from __future__ import annotations

import torch

from paceline.heads.transitions import Transition
from paceline.learning.anchors import Batch
from paceline.learning.weights import FIRST, SECOND, Delta, gate_of


class Table:
    """A transition's table with what was learnt of its rows laid over it."""

    def __init__(self, base: torch.Tensor, ids: torch.Tensor, rows: torch.Tensor) -> None:
        self.base, self.rows = base, rows
        self.places = torch.full((len(base),), -1, dtype=torch.int32)  # of each id in `rows`
        self.places[ids] = torch.arange(len(ids), dtype=torch.int32)

    def of(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows (..., r) in float32 of ids (...)."""
        found, places = self.base[ids].float(), self.places[ids]
        is_learnt = places >= 0
        found[is_learnt] += self.rows[places[is_learnt].long()]
        return found


class Overlay:
    """A transition with a delta laid over it; nothing is copied but what was learnt."""

    def __init__(self, transition: Transition, delta: Delta) -> None:
        self.first = Table(transition.get_parameter(FIRST).detach(), delta.first_ids, delta.first_rows)
        self.second = Table(transition.get_parameter(SECOND).detach(), delta.second_ids, delta.second_rows)
        self.core = core_of(transition, delta)

    def scores(self, batch: Batch) -> torch.Tensor:
        """Scores (N, B, K)."""
        return scores(batch, self.core, self.first.of(batch.before), self.second.of(batch.ids))


def core_of(transition: Transition, delta: Delta) -> Transition:
    """What goes along a path, without tables and hidden states: `step` of it takes their embeddings and features."""
    core = type(transition)(1, 1, transition.rank, 0)
    own = gate_of(core)
    own.copy_(gate_of(transition).float() + delta.gate)
    return core.requires_grad_(False)


def scores(batch: Batch, core: Transition, embedded: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Scores (N, B, K) from the embeddings of the tokens before (N, B, r) and the candidates' rows (N, B, K, r)."""
    state = embedded.new_zeros(len(embedded), core.state_size)
    vectors = []
    for slot in range(embedded.shape[1]):
        state, vector = core.step(state, embedded[:, slot], batch.features[:, slot])
        vectors.append(vector)
    added = (rows @ torch.stack(vectors, 1).unsqueeze(-1)).squeeze(-1)
    return (batch.logits + added) / batch.temperature


def log_law(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    """The head's law (N, B, K + 1), its logarithm: of the candidates, and last of all other tokens together."""
    return torch.log_softmax(torch.cat([score, batch.rest.unsqueeze(-1)], -1), -1)


def target_law(batch: Batch) -> torch.Tensor:
    """The target's law over the same (N, B, K + 1)."""
    return torch.cat([batch.target, (1.0 - batch.target.sum(-1, keepdim=True)).clamp(min=0.0)], -1)


def overlaps(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    """What both laws share among the candidates, slot by slot (N, B), from 0 to 1; 0 in padding."""
    shared = torch.minimum(log_law(batch, score).exp()[..., :-1], batch.target).sum(-1)
    return shared.clamp(max=1.0) * batch.is_slot


def accepted(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    """Tokens (N,) that a chain of the best drafts would have brought on the path that the target went."""
    is_right = ((score + batch.noise).argmax(-1) == batch.came) & batch.is_slot
    return is_right.long().cumprod(-1).sum(-1)
