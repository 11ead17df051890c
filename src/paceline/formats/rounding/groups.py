"""Kinds of blocks that are one group of 32 with one scale."""

from __future__ import annotations

import torch

from paceline.formats.rounding.sums import bytes_of, half, ratio, total

_Q4_STEPS = [8 + step / 10 for step in range(-9, 10)]  # the codes' range that the largest weight is mapped to


def round_q8_0(blocks: torch.Tensor) -> torch.Tensor:
    """(B, 32) float32 as Q8_0 (B, 34): the largest weight is 127 steps of d as float16 holds it."""
    scales = half(blocks.abs().amax(1) / 127)
    codes = _codes(blocks.T, scales, -127, 127).T
    return torch.cat((bytes_of(scales), codes.to(torch.int8).view(torch.uint8)), dim=1)


def round_q4_0(blocks: torch.Tensor) -> torch.Tensor:
    """(B, 32) float32 as Q4_0 (B, 18): the scale of least squared error, weighted by the weights' squares."""
    x = blocks.T.contiguous()
    scales = _search(x, x * x)
    codes = (_codes(x, scales, -8, 7) + 8).to(torch.uint8)
    return torch.cat((bytes_of(scales), (codes[:16] | codes[16:] << 4).T), dim=1)


def _search(x: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Scales (B,) of x (32, B): each candidate maps the largest weight to a little less or more than -8."""
    largest = x.gather(0, x.abs().argmax(0, keepdim=True))[0]
    best = error = None
    for step in _Q4_STEPS:
        scales = _refit(x, importance, _codes(x, -largest / step, -8, 7))
        missed = x - scales * _codes(x, scales, -8, 7)
        wrong = total(importance * missed * missed)
        if best is None or error is None:
            best, error = scales, wrong
        else:
            is_better = wrong < error
            best, error = torch.where(is_better, scales, best), torch.where(is_better, wrong, error)
    assert best is not None
    return best


def _codes(x: torch.Tensor, scales: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The nearest codes (n, B) of x (n, B) within bounds; 0 where the scale is 0."""
    return (x * ratio(torch.ones_like(scales), scales)).round_().clamp_(low, high)


def _refit(x: torch.Tensor, importance: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The scales (B,) of least weighted squared error for given codes, as float16 holds them."""
    weighted = importance * codes
    return half(ratio(total(weighted * x), total(weighted * codes)))
