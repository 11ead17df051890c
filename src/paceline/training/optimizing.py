"""Optimisers whose state is there from the beginning, so that it can be filled from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

_DECAY = 0.05  # of matrices
_TABLES = ("markov_w1", "markov_w2", "embed_tokens", "lm_head")  # a row for each token: most have no gradient in a step

Weights = Mapping[str, torch.Tensor]


def optimizers(name: str, weights: Weights, rate: float) -> list[torch.optim.Optimizer]:
    """Those that a name of `OPTIMIZERS` stands for, each for weights of its own."""
    return OPTIMIZERS[name](weights, rate)


def _adamw(weights: Weights, rate: float) -> list[torch.optim.Optimizer]:
    matrices = [w for w in weights.values() if w.ndim > 1]
    gains = [w for w in weights.values() if w.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": gains, "weight_decay": 0.0}]
    found = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.95), fused=True)
    for weight in weights.values():
        moments = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        found.state[weight] = {"step": torch.zeros((), dtype=torch.float32, device=weight.device), **moments}
    return [found]


def _muon(weights: Weights, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for layers' matrices, at steps of the size of AdamW's; AdamW for the rest."""
    inner = {n: w for n, w in weights.items() if w.ndim == 2 and not any(table in n for table in _TABLES)}
    rest = {n: w for n, w in weights.items() if n not in inner}
    found = torch.optim.Muon(inner.values(), lr=rate, weight_decay=_DECAY, adjust_lr_fn="match_rms_adamw")
    for weight in inner.values():
        found.state[weight] = {"momentum_buffer": torch.zeros_like(weight)}
    return [found, *_adamw(rest, rate)]


OPTIMIZERS: dict[str, Callable[[Weights, float], list[torch.optim.Optimizer]]] = {"adamw": _adamw, "muon": _muon}
