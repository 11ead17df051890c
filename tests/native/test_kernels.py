"""Kernels on random shapes, strides and values: right up to rounding, and the same bits wherever a row stands."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from paceline.errors import ConfigError
from paceline.native import mapping
from paceline.native.layout import LAYOUT, Kind, layout_of
from paceline.native.library import Library, library
from paceline.native.mapping import Function, map_op
from paceline.native.moving import lookup_op
from paceline.native.ops import PackedWeight, make, run
from paceline.native.program import Program
from paceline.native.recording import NotRecordableError, Recording, emit

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def kernels() -> Library:
    found = library()
    assert found is not None
    return found


def random(generator: torch.Generator, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Values whose rows are not contiguous with each other, at an odd place in memory."""
    wide = torch.randn(*shape[:-1], shape[-1] + 5, generator=generator).to(dtype)
    return wide[..., 3 : 3 + shape[-1]]


SHAPES = [(1, 1, 1), (3, 31, 7), (1, 33, 2), (5, 64, 257), (7, 131, 77), (13, 100, 512), (65, 40, 129), (130, 32, 65)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear(kernels: Library, shape: tuple[int, int, int], dtype: torch.dtype):
    rows, columns, k = shape
    generator = torch.Generator().manual_seed(sum(shape))
    weight, x = random(generator, columns, k, dtype=dtype), random(generator, rows, k, dtype=dtype)
    bias = torch.randn(columns, generator=generator).to(dtype)
    packed = PackedWeight(kernels, weight)
    out = torch.full((rows, columns + 3), 7.0, dtype=dtype)
    run(kernels, [packed.linear(out[:, :columns], x, bias)])
    expected = x.double() @ weight.double().T + bias.double()
    scale = x.double().abs() @ weight.double().abs().T + 1
    assert ((out[:, :columns].double() - expected).abs() / scale).max() < TOLERANCE[dtype]
    assert (out[:, columns:] == 7).all()
    for row in range(rows):
        alone = torch.empty(1, columns, dtype=dtype)
        run(kernels, [packed.linear(alone, x[row : row + 1], bias)])
        assert torch.equal(alone[0], out[row, :columns])
    transposed = PackedWeight(kernels, weight.t().contiguous().t())
    assert torch.equal(transposed.data, packed.data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_no_numbers_stay_in_their_row(kernels: Library, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    weight, x = random(generator, 45, 38, dtype=dtype), random(generator, 6, 38, dtype=dtype)
    packed, before, after = (
        PackedWeight(kernels, weight),
        torch.empty(6, 45, dtype=dtype),
        torch.empty(6, 45, dtype=dtype),
    )
    run(kernels, [packed.linear(before, x)])
    x[2, 7], x[4, 0] = torch.nan, torch.inf
    run(kernels, [packed.linear(after, x)])
    assert after[2].isnan().all()
    assert not after[4].isfinite().any()
    others = [0, 1, 3, 5]
    assert torch.equal(before[others], after[others])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "k"), [(1, 1), (37, 9), (70, 64)])
def test_an_embedding_reads_the_packed_weight(kernels: Library, rows: int, k: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(rows)
    weight = random(generator, 77, k, dtype=dtype)
    tokens = torch.randint(0, 77, (rows,), generator=generator)
    out = torch.empty(rows, k, dtype=dtype)
    run(kernels, [PackedWeight(kernels, weight).rows(out, tokens)])
    assert torch.equal(out, weight[tokens])


OUTSIDE = [-1, 77, 78, 1000, 2**31, -(2**31), 2**62, -(2**62), 2**63 - 1, -(2**63), 0, 76]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 9, 64])
def test_a_token_out_of_range_reads_the_nearest_row_and_nothing_outside(kernels: Library, k: int, dtype: torch.dtype):
    weight = random(torch.Generator().manual_seed(k), 77, k, dtype=dtype)
    tokens = torch.tensor(OUTSIDE)
    expected = weight[tokens.clamp(0, 76)]
    gathered, embedded = torch.empty(len(tokens), k, dtype=dtype), torch.empty(len(tokens), k, dtype=dtype)
    run(kernels, [lookup_op(gathered, tokens, weight), PackedWeight(kernels, weight).rows(embedded, tokens)])
    assert torch.equal(gathered, expected)
    assert torch.equal(embedded, expected)


UNARY = {
    Function.COPY: lambda x: x,
    Function.NEGATE: torch.neg,
    Function.EXP: torch.exp,
    Function.SIGMOID: torch.sigmoid,
    Function.SILU: torch.nn.functional.silu,
    Function.TANH: torch.tanh,
    Function.GELU: torch.nn.functional.gelu,
    Function.GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    Function.RELU: torch.relu,
    Function.RSQRT: lambda x: x.abs().rsqrt(),
    Function.SQRT: lambda x: x.abs().sqrt(),
    Function.COS: torch.cos,
    Function.SIN: torch.sin,
    Function.SQUARE: torch.square,
    Function.CUBE: lambda x: x * x * x,
    Function.RECIPROCAL: torch.reciprocal,
    Function.LOG: lambda x: x.abs().log(),
    Function.LOG1P: lambda x: x.abs().log1p(),
    Function.EXPM1: torch.expm1,
    Function.SOFTPLUS: torch.nn.functional.softplus,
    Function.FLOOR: torch.floor,
    Function.ABSOLUTE: torch.abs,
}
SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 120.0, -120.0, torch.inf, -torch.inf, torch.nan]


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.name)
def test_functions(kernels: Library, function: Function):
    generator = torch.Generator().manual_seed(function)
    x = torch.cat([torch.randn(1000, generator=generator) * 4, torch.tensor(SPECIAL), torch.linspace(-1, 1, 200)])
    if function in (Function.RSQRT, Function.SQRT, Function.LOG, Function.LOG1P):
        x = x.abs()
    out, expected = torch.empty_like(x), UNARY[function](x.double())
    run(kernels, [map_op(function, 0.0, 1.0, out, x)])
    if function in (Function.COS, Function.SIN):
        expected[x.isinf()] = torch.nan
    torch.testing.assert_close(out.double(), expected.float().double(), rtol=2e-6, atol=6e-7, equal_nan=True)
    for start in range(0, len(x) - 40, 97):  # the same bits at another place, among others, at an odd end
        size = 1 + start % 37
        part, copy = torch.empty(size), x[start : start + size].clone()
        run(kernels, [map_op(function, 0.0, 1.0, part, copy)])
        assert torch.equal(part.nan_to_num(), out[start : start + size].nan_to_num())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("function", [Function.ADD, Function.SUBTRACT, Function.MULTIPLY, Function.DIVIDE])
def test_pairs_over_strides(kernels: Library, function: Function, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(function)
    left = random(generator, 3, 5, 300, dtype=dtype).transpose(0, 1)
    right = random(generator, 3, 1, 300, dtype=dtype).expand(3, 5, 300).transpose(0, 1)
    compute = {Function.ADD: torch.add, Function.SUBTRACT: torch.sub, Function.MULTIPLY: torch.mul}
    expected = compute.get(function, torch.div)(left, right)
    out = torch.empty(300, 3, 5, dtype=dtype).permute(2, 1, 0)
    run(kernels, [map_op(function, 0.0, 1.0, out, left, right)])
    assert torch.equal(out, expected)
    run(kernels, [map_op(function, 0.75, 1.0, out, left)])
    assert torch.equal(out, compute.get(function, torch.div)(left, 0.75))


@pytest.mark.parametrize("width", [1, 7, 64, 257, 1000])
def test_means_and_norms(kernels: Library, width: int):
    x = random(torch.Generator().manual_seed(width), 4, 3, width, dtype=torch.float32) * 3 + 1
    out = torch.empty(4, 3, 1)
    run(kernels, [make(Kind.MEAN, x.shape, [out, x])])
    torch.testing.assert_close(out, x.mean(-1, keepdim=True), rtol=1e-5, atol=1e-6)
    weight, bias, normal = torch.randn(width), torch.randn(width), torch.empty(4, 3, width)
    op = make(Kind.LAYER_NORM, x.shape, [normal, x, weight, bias])
    op.number[0] = 1e-5
    run(kernels, [op])
    expected = torch.nn.functional.layer_norm(x, (width,), weight, bias, 1e-5)
    torch.testing.assert_close(normal, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_is_never_given_what_it_must_not_have(kernels: Library):
    packed = PackedWeight(kernels, torch.zeros(8, 6))
    good, out = torch.zeros(2, 6), torch.empty(2, 8)
    for x, result in [
        (torch.zeros(2, 5), out),
        (good.bfloat16(), out),
        (torch.zeros(6, 2).t(), out),
        (good, torch.empty(2, 7)),
        (good, torch.empty(3, 8)),
        (good, torch.empty(8, 2).t()),
        (good, torch.empty(2, 8, dtype=torch.float64)),
        (good.to("meta"), out),
    ]:
        with pytest.raises(ValueError, match=r"\S"):
            packed.linear(result, x)
    with pytest.raises(ValueError, match="bias"):
        packed.linear(out, good, torch.zeros(7))
    with pytest.raises(ValueError, match="weight"):
        PackedWeight(kernels, torch.zeros(3, 3, dtype=torch.float64))


def recorded(kernels: Library, function, size: int) -> tuple[torch.Tensor, Program]:
    tokens = torch.zeros(size, dtype=torch.int64)
    with torch.no_grad(), Recording([tokens]) as recording:
        result = function(tokens)
    return tokens, Program(kernels, recording, result)


def test_a_program_does_what_was_recorded_on_other_values(kernels: Library):
    table, packed = torch.randn(50, 36), PackedWeight(kernels, torch.randn(36, 36))

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.embedding(tokens, table)
        for _ in range(6):
            y = torch.empty(len(x), 36)
            emit(kernels, packed.linear, [y], [x])
            halves = torch.cat([-y[:, 18:], y[:, :18]], -1)
            x = x + halves * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
            x = torch.cumsum(x, 0) / 3  # nothing that the kernels know
        return x

    tokens, program = recorded(kernels, forward, 9)
    assert program.num_segments == 13
    for seed in range(3):
        tokens.copy_(torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(seed)))
        program.run()
        first = program.result.clone()
        torch.testing.assert_close(first, forward(tokens), rtol=1e-4, atol=1e-4)
        program.run()
        assert torch.equal(program.result, first)


def test_a_prefix_of_a_program_ends_where_memory_outside_is_what_it_is_to_be(kernels: Library):
    packed, memory = PackedWeight(kernels, torch.randn(8, 8)), torch.zeros(5, 8)
    tokens = torch.zeros(5, dtype=torch.int64)
    with torch.no_grad(), Recording([tokens], [memory]) as recording:
        emit(kernels, packed.linear, [memory], [tokens[:, None].float() * torch.ones(8)])
        count = len(recording.steps)
        result = torch.empty(5, 8)
        emit(kernels, packed.linear, [result], [memory])
    program = Program(kernels, recording, result, count)
    tokens.fill_(1)
    program.run()
    kept, before = memory.clone(), program.result.clone()
    tokens.fill_(2)
    program.run_prefix()
    torch.testing.assert_close(memory, 2 * kept)
    assert not torch.allclose(program.result, 2 * before)  # nobody has asked for it
    program.run()
    torch.testing.assert_close(program.result, 2 * before)


def test_a_program_uses_memory_again(kernels: Library):
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        x = tokens.float()
        for _ in range(40):
            x = x * 1.5 + 1
        return x

    _, program = recorded(kernels, forward, 1000)
    assert program.arena_bytes <= 4 * 4096


def test_what_a_recording_cannot_follow_is_refused(kernels: Library):
    with pytest.raises(NotRecordableError, match="Python"):
        recorded(kernels, lambda tokens: tokens.float() * int(tokens.max()), 3)
    constant = torch.zeros(3)
    with pytest.raises(NotRecordableError, match="constant"):
        recorded(kernels, lambda tokens: constant.add_(tokens), 3)


@pytest.mark.parametrize(("header", "enum", "mirror"), [("map.h", "function", Function), ("paceline.h", "kind", Kind)])
def test_numbers_are_those_of_the_kernels(header: str, enum: str, mirror: type):
    text = (Path(mapping.__file__).parent / "csrc" / header).read_text()
    names = text.split(f"enum {enum} {{")[1].split("}")[0].split(",")
    assert [name.strip() for name in names if name.strip() != "NUM_KINDS"] == [member.name for member in mirror]
    assert [int(member) for member in mirror] == list(range(len(mirror)))


def test_the_structs_are_those_of_the_kernels():
    path = next(Path(mapping.__file__).parent.glob("_kernels*.so"))
    assert layout_of(ctypes.CDLL(str(path))) == LAYOUT


@pytest.fixture
def loaded_anew():
    """`library` finds its kernels again in this test, and once more after it."""
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.mark.parametrize("place", range(len(LAYOUT)))
@pytest.mark.usefixtures("loaded_anew")
def test_kernels_of_another_layout_are_refused(monkeypatch: pytest.MonkeyPatch, place: int):
    other = (*LAYOUT[:place], LAYOUT[place] + 8, *LAYOUT[place + 1 :])
    monkeypatch.setattr("paceline.native.library.LAYOUT", other)
    with pytest.raises(ConfigError, match=r"another version.*install Paceline again"):
        library()


def test_a_library_that_says_no_layout_has_none():
    assert layout_of(ctypes.CDLL(torch._C.__file__)) == ()
