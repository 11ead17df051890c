"""Sums and numbers whose bits do not depend on how torch splits its work."""

from __future__ import annotations

import torch


def total(terms: torch.Tensor) -> torch.Tensor:
    """The sum over the first dimension, a power of two long, by halves: additions of single elements."""
    while len(terms) > 1:
        low, high = terms.chunk(2)
        terms = low + high
    return terms[0]


def ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a / b`, and 0 where b is 0."""
    return torch.where(b == 0, 0, a / b)


def half(x: torch.Tensor) -> torch.Tensor:
    """Float32 rounded to what a float16 scale can hold; what is larger becomes infinite."""
    return x.half().float()


def bytes_of(x: torch.Tensor) -> torch.Tensor:
    """(B,) as its float16 bytes (B, 2)."""
    return x.half()[:, None].view(torch.uint8)
