"""Heads that fit a tiny target: trained on the very rows that they are tried on, in a reading of one's choice."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from paceline.heads.overlap import guesses
from paceline.heads.seen import Seen


def plain(seen: Seen) -> Seen:
    """The same, as tensors that can be trained on."""
    values = {field.name: getattr(seen, field.name) for field in fields(seen)}
    values["taps"] = {tap: rows.clone() for tap, rows in seen.taps.items()}
    return Seen(**{name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in values.items()})


def fit(head: Any, seen: Seen, steps: int = 60, label: int = 0) -> float:
    """Train all of a bound head but what it shares with its target; the last loss, in nats a token."""
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(steps):
        losses = []
        for guess in guesses(head, seen):
            rows = guess.rows + label - 1
            known = rows < len(seen.tokens)
            law = seen.logits[rows[known]].softmax(-1)
            losses.append(-(law * guess.logits[known].log_softmax(-1)).sum(-1).mean())
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.requires_grad_(False)
    return float(loss.detach())
