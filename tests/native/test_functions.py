"""Functions of values: within a few units in the last place of float64, on every instruction set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from native.sets import all_sets
from paceline.native.library import library
from paceline.native.mapping import Function, map_calls, map_op
from paceline.native.ops import run

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
Doubles = NDArray[np.float64]

# Each function in float64, and how many units in the last place ours may be away.
LOGARITHMS: dict[Function, tuple[Callable[[Doubles], Doubles], int]] = {
    Function.LOG: (np.log, 2),
    Function.LOG1P: (np.log1p, 3),
    Function.EXPM1: (np.expm1, 3),
    Function.SOFTPLUS: (lambda x: np.logaddexp(0, x), 4),
    Function.FLOOR: (np.floor, 0),
}
BY_EXP = (Function.EXPM1, Function.SOFTPLUS)
EDGES = [0.0, -0.0, 1e-45, 1e-40, 1.2e-38, 1e-30, 1e-8, 0.5, 1.0, 1.5, 88.0, 104.0, 3.4e38, np.inf, np.nan]


def samples(seed: int) -> torch.Tensor:
    """Floats of every size and sign, with the edges of what functions do among them."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    spread = [random.normal(0, 5, 4000), random.uniform(-1.1, 1.1, 4000), EDGES, np.negative(EDGES)]
    return torch.from_numpy(np.concatenate([bits, *(np.asarray(values, np.float32) for values in spread)]))


def units_apart(found: torch.Tensor, expected: Doubles) -> NDArray[np.float64]:
    """How far floats are from exact values, in units in the last place of the float that is nearest to them."""
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = expected.astype(np.float32)
        unit = np.spacing(np.abs(nearest)).astype(np.float64)
        apart = np.abs(found.double().numpy() - expected) / unit
    same = (found.numpy() == nearest) | (np.isnan(found.numpy()) & np.isnan(nearest))
    return np.where(same, 0, np.where(np.isnan(apart), np.inf, apart))


@pytest.mark.parametrize("function", LOGARITHMS, ids=lambda f: f.name)
def test_a_function_is_near_its_value_and_the_same_on_every_instruction_set(function: Function):
    x = samples(function)
    compute, units = LOGARITHMS[function]
    with np.errstate(all="ignore"):
        expected = compute(x.double().numpy())
    results = []
    for kernels in all_sets():
        out = torch.empty_like(x)
        run(kernels, [map_op(function, 0.0, 1.0, out, x)])
        results.append(out)
        worst = int(units_apart(out, expected).argmax())
        assert units_apart(out, expected).max() <= units + 0.5, f"{x[worst]}: {out[worst]}, not {expected[worst]}"
    # The exponential below these two is not fused where that would cost a call.
    are_fused = [kernels.name != "portable" or function not in BY_EXP for kernels in all_sets()]
    same = [result.nan_to_num() for result, is_fused in zip(results, are_fused, strict=True) if is_fused]
    assert all(torch.equal(same[0], other) for other in same[1:])


def recorded(func: Function, out: torch.Tensor, *given: object, **more: object) -> torch.Tensor:
    """What the call for a function writes to `out`."""
    kernels = library()
    calls = map_calls(func, out, *given, **more)  # type: ignore[arg-type]
    assert kernels is not None
    assert calls is not None
    for make, writes, reads in calls:
        run(kernels, [make(*writes, *reads)])
    return out


COMPARED = {
    Function.LESS: torch.lt,
    Function.LESS_EQUAL: torch.le,
    Function.GREATER: torch.gt,
    Function.GREATER_EQUAL: torch.ge,
    Function.EQUAL: torch.eq,
    Function.NOT_EQUAL: torch.ne,
}
EXTREME = [2**63 - 1, -(2**63), 2**24 + 1, 2**53 + 1, -(2**24) - 1, 0, 1, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("function", COMPARED, ids=lambda f: f.name)
def test_comparisons(function: Function, dtype: torch.dtype):
    x = torch.randint(-3, 4, (3, 300), generator=torch.Generator().manual_seed(1)).to(dtype)
    if dtype == torch.int64:
        x[1, : len(EXTREME)] = torch.tensor(EXTREME)
    else:
        x[1, 5], x[2, 5:7] = torch.nan, torch.nan
    y = x.roll(7, 1)[:, ::2]
    x = x[:, ::2]
    out = torch.empty(x.shape, dtype=torch.bool)
    assert torch.equal(recorded(function, out, x, y), COMPARED[function](x, y))
    assert torch.equal(recorded(function, out, x, 1), COMPARED[function](x, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_the_larger_the_smaller_and_a_choice(dtype: torch.dtype):
    x = (torch.randn(5, 37, generator=torch.Generator().manual_seed(2)) * 9).to(dtype)
    y = x.flip(1)
    if dtype != torch.int64:
        x[2, 3], y[4, 30] = torch.nan, torch.nan
    out = torch.empty_like(x)
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(recorded(Function.MAXIMUM, out, x, y), torch.maximum(x, y), **same)
    torch.testing.assert_close(recorded(Function.MINIMUM, out, x, y), torch.minimum(x, y), **same)
    chosen = recorded(Function.WHERE, out, x, y, choice=x > 0)
    torch.testing.assert_close(chosen, torch.where(x > 0, x, y), **same)
    torch.testing.assert_close(
        recorded(Function.WHERE, out, x, 4, choice=y > 0), torch.where(y > 0, x, torch.tensor(4).to(dtype)), **same
    )


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40), st.integers(-(2**63), 2**63 - 1))
def test_integers_wrap_around_and_are_never_rounded(values: list[int], other: int):
    x, y = torch.tensor(values), torch.tensor(other)
    out = torch.empty_like(x)
    assert torch.equal(recorded(Function.ADD, out, x, y), x + y)
    assert torch.equal(recorded(Function.SUBTRACT, out, x, y), x - y)
    assert torch.equal(recorded(Function.MULTIPLY, out, x, y), x * y)
    assert torch.equal(recorded(Function.ADD, out, x, 7, 3), x + 21)
    assert torch.equal(recorded(Function.NEGATE, out, x), -x)
    if other not in (0, -1):
        assert recorded(Function.DIVIDE, out, x, y).tolist() == [value // other for value in values]


def test_no_quotient_of_integers_stops_the_process():
    x = torch.tensor([5, -(2**63), 0])
    out = torch.empty_like(x)
    assert recorded(Function.DIVIDE, out, x, torch.tensor([0, -1, 0])).tolist() == [0, -(2**63), 0]


def test_floats_become_integers_and_truth_values():
    x = torch.tensor([0.0, -0.0, 1.7, -1.7, 1e-40, 12345678.0, torch.nan])
    found = recorded(Function.COPY, torch.empty(7, dtype=torch.int64), x[:6].expand(6).repeat(2)[:7])
    assert found.tolist() == [0, 0, 1, -1, 0, 12345678, 0]
    assert recorded(Function.COPY, torch.empty(7, dtype=torch.bool), x).tolist() == x.bool().tolist()
    truth = x > 0
    assert torch.equal(recorded(Function.COPY, torch.empty(7), truth), truth.float())
    assert torch.equal(recorded(Function.COPY, torch.empty(7, dtype=torch.int64), truth), truth.long())
