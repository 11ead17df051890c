"""PyTorch's small operations in a recording: all native, and the values that PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from paceline.native.immediate import Immediate
from paceline.native.library import Library, library
from paceline.native.program import Program
from paceline.native.recording import Recording

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
TABLE = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
KINDS = torch.arange(80).flip(0)


def halves(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)


def filled(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty(*x.shape[:-1], 9)
    out[..., :6] = x
    out[..., 6:] = x[..., :3] * 2
    return out


def scattered(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[:, 1:4] = x[:, :3]
    return out + torch.full_like(x, 2.0)


def turned(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    angles = t[:, None] * TABLE[:1, :3]
    turns = torch.polar(torch.ones_like(angles), angles) * 1.5
    return torch.view_as_real(torch.view_as_complex(x.view(7, 3, 2)) * turns).flatten(1)


OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "reciprocal root": lambda x, t: x.abs() ** -0.5,
    "stack": lambda x, t: halves(x),
    "stack in front": lambda x, t: torch.stack([x, x * 2, x - 1]),
    "softplus": lambda x, t: functional.softplus(x),
    "logarithms": lambda x, t: torch.log(x.abs() + 1) + torch.log1p(x.abs()) + torch.expm1(x),
    "floor": lambda x, t: torch.floor(x * 3),
    "clamp": lambda x, t: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp_max(0.2),
    "where": lambda x, t: torch.where(x > 0, x * 3, torch.expm1(x)),
    "minimum": lambda x, t: torch.minimum(x, TABLE[:1]) + torch.maximum(x, TABLE[1:2]),
    "masked": lambda x, t: x.masked_fill((x > 0.3) & ~(x > 0.9), 5.0),
    "masked by a value": lambda x, t: x.masked_fill(x > 0.3, t.sum().abs() * 0 + t[0]),
    "masked tokens": lambda x, t: TABLE[torch.where((t >= 0) & (t < 5), t, 0)],
    "one minus": lambda x, t: 1 - x,
    "shifted positions": lambda x, t: functional.embedding(t + 2, TABLE),
    "whole quotients": lambda x, t: TABLE[t // 4] + TABLE[t - 38],
    "a kind for each position": lambda x, t: functional.embedding(KINDS[None].gather(1, t[None])[0] % 1 + t, TABLE),
    "filled in pieces": lambda x, t: filled(x),
    "written into zeros": lambda x, t: scattered(x),
    "padded": lambda x, t: functional.pad(x, (2, 1), value=0.5),
    "padded in front": lambda x, t: functional.pad(x[None], (0, 0, 3, 0)),
    "repeated": lambda x, t: x.repeat(3, 1, 2),
    "interleaved": lambda x, t: x.repeat_interleave(3, dim=1),
    "expanded": lambda x, t: x[:, None].expand(-1, 4, -1).reshape(len(x), -1) + 1,
    "split": lambda x, t: torch.cat([part * 2 for part in x.split([1, 2, 3], 1)][::-1], 1),
    "sums": lambda x, t: x / x.abs().sum(-1, keepdim=True) + (x * x).sum(-1)[:, None],
    "mean of few": lambda x, t: torch.stack([x, x * 2, x - 1, x.abs()]).mean(dim=0),
    "sum of few": lambda x, t: x.view(7, 2, 3).sum(1),
    "deviation": lambda x, t: x - torch.std(x, dim=-1, keepdim=True, unbiased=False),
    "small products": lambda x, t: torch.matmul(x.view(7, 2, 3), (x * 2).view(7, 3, 2)),
    "turns": turned,
    "scale by position": lambda x, t: x * (1 + 0.1 * torch.log(1 + torch.floor(t / 7)))[:, None],
}
BY_PYTORCH = {"a kind for each position": 2, "masked by a value": 2}  # the remainder; the sum of integers


def program(kernels: Library, name: str) -> tuple[torch.Tensor, torch.Tensor, Program]:
    x, tokens = torch.zeros(7, 6), torch.zeros(7, dtype=torch.int64)
    with torch.no_grad(), Recording([x, tokens]) as recording:
        result = OPERATIONS[name](x, tokens)
    return x, tokens, Program(kernels, recording, result)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_native_and_what_pytorch_computes(name: str):
    kernels = library()
    assert kernels is not None
    x, tokens, made = program(kernels, name)
    assert made.num_segments == 1 + BY_PYTORCH.get(name, 0)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x.copy_(torch.randn(7, 6, generator=generator))
        tokens.copy_(torch.randint(0, 38, (7,), generator=generator))
        made.run()
        torch.testing.assert_close(made.result, OPERATIONS[name](x, tokens), rtol=2e-6, atol=2e-6)


def test_what_was_written_into_zeros_is_zero_again_at_the_next_run():
    kernels = library()
    assert kernels is not None
    x, _, made = program(kernels, "written into zeros")
    x.fill_(3)
    made.run()
    x.fill_(-1)
    made.run()
    assert made.result[0].tolist() == [2, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("width", [1, 7, 45])
def test_at_once_a_value_has_the_bits_that_it_has_alone(width: int):
    kernels = library()
    assert kernels is not None

    def gate(values: torch.Tensor) -> torch.Tensor:
        first, second = values[..., ::2].clamp(max=1.5), values[..., 1::2].clamp(-1.5, 1.5)
        return (second + 1).mul_(first * torch.sigmoid(first * 1.702))

    values = torch.randn(37, 2 * width, generator=torch.Generator().manual_seed(width)) * 3
    with Immediate(kernels):
        together = gate(values)
        alone = torch.cat([gate(values[i : i + 1]) for i in range(37)])
    assert torch.equal(together, alone)
    torch.testing.assert_close(together, gate(values), rtol=2e-6, atol=2e-6)
