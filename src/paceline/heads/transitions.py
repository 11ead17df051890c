"""How the logits of a block's slot depend on the token that was chosen before it: low-rank corrections of three kinds.

A block is drafted in one forward, so its slots know nothing of each other's tokens. A transition adds
`W2 v` to a slot's logits, where the vector v (r,) comes of the token before it, of the slot's own hidden state, and, in
the recurrent kind, of a state that goes along the path. Names and formulas are DSpark's (arXiv 2607.05147).
"""

from __future__ import annotations

import torch
from torch import nn


class Transition(nn.Module):
    """v is the embedding of the token before: a bigram table of rank r."""

    def __init__(self, vocab_size: int, num_logits: int, rank: int, hidden_size: int) -> None:
        super().__init__()
        self.rank = rank
        self.markov_w1 = nn.Embedding(vocab_size, rank)
        self.markov_w2 = nn.Linear(rank, num_logits, bias=False)

    @property
    def num_features(self) -> int:
        """Numbers that a slot contributes, whatever token stands before it."""
        return 0

    @property
    def state_size(self) -> int:
        """Numbers that go from slot to slot along a path."""
        return 0

    def features(self, hidden: torch.Tensor) -> torch.Tensor:
        """What slots (..., h) contribute: (..., num_features)."""
        return hidden[..., :0]

    def step(
        self, state: torch.Tensor, before: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state behind a slot (..., state_size) and its vector (..., r), from the embedding before it (..., r)."""
        return state, before

    def vectors(self, hidden: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """V of whole blocks (N, B, r): hidden (N, B, h), tokens before (N, B)."""
        features, embedded = self.features(hidden), self.markov_w1(before)
        state = hidden.new_zeros(len(hidden), self.state_size)
        found = []
        for slot in range(hidden.shape[1]):
            state, vector = self.step(state, embedded[:, slot], features[:, slot])
            found.append(vector)
        return torch.stack(found, 1)

    def biases(self, hidden: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """What is added to the logits of whole blocks (N, B, num_logits): hidden (N, B, h), tokens before (N, B)."""
        return self.markov_w2(self.vectors(hidden, before))  # type: ignore[no-any-return]


class GatedTransition(Transition):
    """v is that embedding, each number of it let through by a gate that sees both."""

    def __init__(self, vocab_size: int, num_logits: int, rank: int, hidden_size: int) -> None:
        super().__init__(vocab_size, num_logits, rank, hidden_size)
        self.gate_proj = nn.Linear(hidden_size + rank, rank)

    @property
    def num_features(self) -> int:
        """See `Transition`."""
        return self.rank

    def features(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Transition`."""
        return nn.functional.linear(hidden, self.gate_proj.weight[:, : -self.rank], self.gate_proj.bias)

    def step(
        self, state: torch.Tensor, before: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Transition`."""
        own = nn.functional.linear(before, self.gate_proj.weight[:, -self.rank :])
        return state, torch.sigmoid(features + own) * before


class RecurrentTransition(Transition):
    """v comes of a gated state that has seen every token of the path."""

    def __init__(self, vocab_size: int, num_logits: int, rank: int, hidden_size: int) -> None:
        super().__init__(vocab_size, num_logits, rank, hidden_size)
        self.joint_proj = nn.Linear(2 * rank + hidden_size, 3 * rank)

    @property
    def num_features(self) -> int:
        """See `Transition`."""
        return 3 * self.rank

    @property
    def state_size(self) -> int:
        """See `Transition`."""
        return self.rank

    def features(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `Transition`."""
        return nn.functional.linear(hidden, self.joint_proj.weight[:, 2 * self.rank :], self.joint_proj.bias)

    def step(
        self, state: torch.Tensor, before: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Transition`."""
        weight = self.joint_proj.weight[:, : 2 * self.rank]
        joint = features + nn.functional.linear(torch.cat([state, before], -1), weight)
        gate, candidate, out = joint.chunk(3, -1)
        share = torch.sigmoid(gate)
        return share * state + (1.0 - share) * torch.tanh(candidate), torch.tanh(out)


TRANSITIONS = {"vanilla": Transition, "gated": GatedTransition, "rnn": RecurrentTransition}  # by DSpark's names
