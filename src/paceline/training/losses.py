"""What a drafter is trained for: divergences between the target's law and the drafter's, and chances of acceptance.

p is the target's distribution, q the drafter's, both (R, K) over a row's candidates, the last of which stands for all
tokens that are not among them. Everything is differentiable in q.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_LEAST = 1e-9  # of a probability
_ETA = 3.0  # how fast LK goes over to the total variation as overlap grows

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of p and q: (R,)


def overlap(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) sum of min(p, q), that is 1 - TV: the chance of acceptance by rejection sampling."""
    return torch.minimum(p, q).sum(-1)


def joint(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R, K) the chance that, with one Gumbel noise for both, target and drafter both pick a token.

    1 / sum_j max(p_j / p_i, q_j / q_i): of exponential clocks that run at rates p and q on the same noise, both ring
    first at i. By falling p / q the maximum is the first up to i, and the second from there on: two cumulative sums.
    """
    order = (p / (q.detach() + _LEAST)).argsort(-1, descending=True)
    p_sorted, q_sorted = p.gather(-1, order), q.gather(-1, order)
    above = p_sorted.cumsum(-1)
    below = (q_sorted.sum(-1, keepdim=True) - q_sorted.cumsum(-1)).clamp_min(0.0)
    chances = p_sorted * q_sorted / (above * q_sorted + below * p_sorted + _LEAST**2)
    return torch.zeros_like(p).scatter(-1, order, chances)


def match(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) the chance that with shared noise the drafter's best token is the target's; the lumped rest never is."""
    return joint(p, q)[..., :-1].sum(-1)


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) nats of KL(p || q)."""
    return (p * ((p + _LEAST).log() - (q + _LEAST).log())).sum(-1)


def tv(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) total variation."""
    return 1.0 - overlap(p, q)


def lk(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) KL where they hardly overlap, total variation where they do (LK, arXiv 2602.23881)."""
    shared = overlap(p, q)
    return _blend(kl(p, q), 1.0 - shared, shared)


def mismatch(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R,) the same with the chance of a mismatch under shared noise, which is what this engine pays for."""
    chance = match(p, q)
    return _blend(kl(p, q), 1.0 - chance, chance)


def _blend(begin: torch.Tensor, end: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    share = torch.exp(-_ETA * success.detach())
    return share * begin + (1.0 - share) * end


LOSSES: dict[str, Loss] = {"kl": kl, "tv": tv, "lk": lk, "match": mismatch}


def decay(accepted: torch.Tensor) -> torch.Tensor:
    """Weights (B,) of slots, exp(-k / 4) (DSpark): a later slot counts only if all before it were right."""
    slots = torch.arange(accepted.shape[-1], device=accepted.device)
    return torch.exp(-slots / 4.0)


def pace(accepted: torch.Tensor, floor: float = 0.5) -> torch.Tensor:
    """Weights (N, B) of slots by what depends on them (D-PACE, arXiv 2605.18810), from chances (N, B) of acceptance."""
    reached = ((1.0 - floor) * accepted.detach() + floor).cumprod(-1)
    return reached.flip(-1).cumsum(-1).flip(-1)


WEIGHTS = {"decay": decay, "pace": pace}


def weighted(loss: torch.Tensor, accepted: torch.Tensor, valid: torch.Tensor, weights: str) -> torch.Tensor:
    """The mean of slots' losses (N, B) over those that are `valid`, by weights that a name of `WEIGHTS` gives."""
    chosen = WEIGHTS[weights](accepted).expand_as(loss) * valid
    return (loss * chosen).sum() / chosen.sum().clamp_min(_LEAST)


def lumped(probabilities: torch.Tensor) -> torch.Tensor:
    """(R, K + 1): candidates' probabilities (R, K), and behind them that of all other tokens."""
    rest = (1.0 - probabilities.sum(-1, keepdim=True)).clamp_min(0.0)
    return torch.cat([probabilities, rest], -1)


def on_candidates(logits: torch.Tensor, candidates: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """(R, K + 1) probabilities of candidates (R, K) at temperatures (R, 1), normalised over all of logits (R, V)."""
    scaled = logits / heat
    return lumped(torch.exp(scaled.gather(-1, candidates) - scaled.logsumexp(-1, keepdim=True)))  # see projecting.py


def expected_length(accepted: torch.Tensor) -> torch.Tensor:
    """(N,) tokens of a step whose slots are accepted with chances (N, B), its bonus among them."""
    return 1.0 + accepted.cumprod(-1).sum(-1)
