"""Programs worked out from two recordings: the bits of a recording at each number of rows, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline.native.library import Library, library
from paceline.native.ops import PackedWeight
from paceline.native.program import Program
from paceline.native.recording import Recording, emit
from paceline.native.scaling import NotScalableError, ProgramFamily, Recorded

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
MOST = 64
Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def kernels() -> Library:
    found = library()
    assert found is not None
    return found


def record(function: Function, inputs: torch.Tensor, count: int) -> Recorded:
    rows = inputs[:count]
    with torch.no_grad(), Recording([rows]) as recording:
        result = function(rows)
    return Recorded(count, recording, result, len(recording.steps) // 2)


def family(kernels: Library, function: Function, inputs: torch.Tensor, few: int = 2) -> ProgramFamily:
    return ProgramFamily(kernels, record(function, inputs, few), record(function, inputs, MOST))


def model(kernels: Library, width: int, seed: int) -> Function:
    """Something like a layer: a table, a norm, linears, halves that are turned, a constant and a residual."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(50, width, generator=generator)
    weight = PackedWeight(kernels, torch.randn(width, width, generator=generator))
    scale = torch.randn(width, generator=generator)

    def linear(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(x), width)
        emit(kernels, weight.linear, [out], [x])
        return out

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.embedding(tokens, table)
        normal = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * scale
        pair = torch.stack([x, x * 2]).sum(0) + torch.zeros_like(x)  # places and constants that grow with the rows
        halves = linear(normal + pair * 0.1).view(len(tokens), 2, -1).transpose(0, 1)
        turned = torch.cat([-halves[1], halves[0]], -1) * torch.tensor(0.37)
        return torch.nn.functional.silu(linear(turned.contiguous())) + x

    return forward


@given(st.integers(3, MOST - 1), st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**31))
def test_what_is_worked_out_has_the_bits_of_a_recording(count: int, half: int, few: int, seed: int) -> None:
    kernels = library()
    assert kernels is not None
    tokens = torch.zeros(MOST, dtype=torch.int64)
    forward = model(kernels, 2 * half, seed)
    found = family(kernels, forward, tokens, few).program(max(count, few))
    own = record(forward, tokens, max(count, few))
    recorded = Program(kernels, own.recording, own.result)
    for again in range(2):
        tokens.copy_(torch.randint(50, (MOST,), generator=torch.Generator().manual_seed(seed + again)))
        found.run()
        recorded.run()
        assert torch.equal(found.result, recorded.result)


def test_the_prefix_ends_where_that_of_a_recording_ends(kernels: Library) -> None:
    tokens = torch.zeros(MOST, dtype=torch.int64)
    memory, identity = torch.zeros(MOST, 4), PackedWeight(kernels, torch.eye(4))

    def stored(rows: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.embedding(rows, torch.arange(200.0).view(50, 4))
        emit(kernels, identity.linear, [memory[: len(rows)]], [x])
        return x * 2

    def recorded(count: int) -> Recorded:
        with torch.no_grad(), Recording([tokens[:count]], [memory]) as recording:
            result = stored(tokens[:count])
        return Recorded(count, recording, result, 2)

    found = ProgramFamily(kernels, recorded(2), recorded(MOST)).program(5)
    tokens[:] = 7
    memory.zero_()
    found.run_prefix()
    assert torch.equal(memory[:5], torch.arange(28.0, 32.0).expand(5, 4))
    assert not memory[5:].any()
    assert not found.result.any()


def _more_work_for_many(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if len(x) < 9 else x * 2 + 1


def _another_function_for_many(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x) if len(x) < 9 else torch.tanh(x)


def _another_number(x: torch.Tensor) -> torch.Tensor:
    return x * len(x)


def _a_constant_of_the_rows(x: torch.Tensor) -> torch.Tensor:
    return x + torch.arange(len(x), dtype=torch.float32)[:, None]


def _a_constant_that_differs(x: torch.Tensor) -> torch.Tensor:
    return x + torch.full((3,), float(len(x)))


def _rows_squared(x: torch.Tensor) -> torch.Tensor:
    return (x[:, None] * x[None]).sum(-1) * 1.0


def _from_the_end(x: torch.Tensor) -> torch.Tensor:
    return x[len(x) // 3 :] * 2.0


@pytest.mark.parametrize(
    "function",
    [
        _more_work_for_many,
        _another_function_for_many,
        _another_number,
        _a_constant_of_the_rows,
        _a_constant_that_differs,
        _rows_squared,
        _from_the_end,
    ],
)
def test_what_does_not_grow_with_the_rows_alone_is_refused(kernels: Library, function: Function) -> None:
    table = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(MOST, dtype=torch.int64)
    with pytest.raises(NotScalableError):
        family(kernels, lambda rows: function(torch.nn.functional.embedding(rows, table)), tokens)
