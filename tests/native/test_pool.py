"""Workers that take items by ticket: the same bits whoever computes what, however late, and however many there are."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exactness.scenes import Scene
from native.attending import by_kernels, random_case
from paceline.native import library as library_module
from paceline.native import program as program_module
from paceline.native.layout import Op
from paceline.native.library import Library, library
from paceline.native.mapping import Function, map_op
from paceline.native.ops import PackedWeight, run
from paceline.native.program import Program
from paceline.native.recording import Recording, emit

KERNELS = library()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="no native kernels")
WORKERS = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module", autouse=True)
def many_processors() -> Iterator[None]:
    """As many workers as are asked for, on any machine."""
    before, threads = library_module.processors, torch.get_num_threads()
    library_module.processors = lambda: 64
    yield
    library_module.processors = before
    torch.set_num_threads(threads)


def dawdle(seed: int) -> None:
    """From now on workers wait at random before they take one item; 0: no more."""
    [path] = Path(library_module.__file__).parent.glob("_kernels*.so")
    ctypes.c_uint32.in_dll(ctypes.CDLL(str(path)), "paceline_dawdle").value = seed


@pytest.fixture
def kernels() -> Iterator[Library]:
    assert KERNELS is not None
    yield KERNELS
    dawdle(0)


def model(kernels: Library, rows: int, width: int, dtype: torch.dtype, seed: int) -> Callable[[], bytes]:
    """Products, shared and small elementwise work, and reductions, each of which waits for what was before."""
    generator = torch.Generator().manual_seed(seed)
    up, down = (
        PackedWeight(kernels, torch.randn(n, k, generator=generator).div(k**0.5).to(dtype))
        for n, k in ((4 * width, width), (width, 4 * width))
    )
    table = torch.randn(50, width, generator=generator).to(dtype)
    tokens = torch.randint(0, 50, (rows,), generator=generator)
    with torch.no_grad(), Recording([tokens]) as recording:
        x = torch.nn.functional.embedding(tokens, table)
        for _ in range(3):
            wide, narrow = torch.empty(rows, 4 * width, dtype=dtype), torch.empty(rows, width, dtype=dtype)
            emit(kernels, up.linear, [wide], [x])
            wide = torch.nn.functional.silu(wide) * wide
            emit(kernels, down.linear, [narrow], [wide])
            x = x + narrow
            x = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(dtype)
    program = Program(kernels, recording, x)

    def bits() -> bytes:
        """The result's, after a run on other tokens: what it left must not pass for what is to be computed."""
        for _ in range(2):
            tokens.sub_(49).neg_()
            program.run()
        return program.result.view(torch.uint8).numpy().tobytes()

    return bits


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(1, 70),
    width=st.integers(1, 300),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(1, 2**31),
)
def test_no_bit_depends_on_who_computes_it(rows: int, width: int, dtype: torch.dtype, seed: int):
    assert KERNELS is not None
    torch.set_num_threads(1)
    bits = model(KERNELS, rows, width, dtype, seed)
    expected = bits()
    try:
        for workers in WORKERS:
            torch.set_num_threads(workers)
            for again in range(3):
                dawdle(seed + again if again else 0)
                assert bits() == expected, (workers, again)
    finally:
        dawdle(0)


@pytest.mark.parametrize("seed", range(400, 405))
def test_attention_by_dawdling_workers_has_the_same_bits(kernels: Library, seed: int):
    torch.set_num_threads(1)
    scene = Scene(random_case(seed, by_kernels))
    expected = by_kernels(scene, scene.work, scene.query)
    for workers in WORKERS:
        torch.set_num_threads(workers)
        dawdle(seed * workers)
        assert torch.equal(by_kernels(scene, scene.work, scene.query), expected)


def test_a_missing_wait_is_seen(kernels: Library, monkeypatch: pytest.MonkeyPatch):
    """Planted: nothing waits for anything. Some run of many comes out wrong."""
    torch.set_num_threads(1)
    expected = model(kernels, 40, 200, torch.float32, 7)()
    monkeypatch.setattr(program_module.Waits, "must_wait", lambda *_: False)
    broken = model(kernels, 40, 200, torch.float32, 7)
    assert broken() == expected  # alone, everything is in order
    torch.set_num_threads(4)

    def differs(seed: int) -> bool:
        dawdle(seed)
        return broken() != expected

    assert any(differs(seed) for seed in range(1, 50))


def test_contiguous_elementwise_work_is_shared_in_blocks(kernels: Library):
    x = torch.randn(64, 1031)
    out = torch.full_like(x, 7.0)
    op: Op = map_op(Function.SILU, 0.0, 1.0, out, x)
    assert list(op.shape[: op.ndim]) == [64 * 1031]  # one row
    torch.set_num_threads(1)
    run(kernels, [op])
    expected = out.clone()
    for workers in WORKERS:
        torch.set_num_threads(workers)
        dawdle(workers)
        out.fill_(7)
        run(kernels, [op])
        assert torch.equal(out, expected)


def test_threads_that_call_at_once_all_get_their_result(kernels: Library):
    torch.set_num_threads(3)
    callables = [model(kernels, 9 + i, 100 + i, torch.float32, i + 1) for i in range(4)]
    expected = [bits() for bits in callables]
    dawdle(5)
    wrong: list[int] = []

    def call(i: int) -> None:
        torch.set_num_threads(3)
        wrong.extend(i for _ in range(60) if callables[i]() != expected[i])

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_nothing_runs_on_after_a_call(kernels: Library):
    torch.set_num_threads(4)
    model(kernels, 40, 200, torch.float32, 1)()
    kernels.expect()
    time.sleep(0.05)  # helpers that were told to expect a call give it up
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25  # one that spins takes 0.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_fork_makes_workers_of_its_own(python: str):
    code = """
import os, sys
sys.path.insert(0, "tests")
import torch
from native.test_pool import KERNELS, library_module, model
library_module.processors = lambda: 64
torch.set_num_threads(3)
bits = model(KERNELS, 20, 100, torch.float32, 3)
expected = bits()
if os.fork() == 0:
    os._exit(0 if all(bits() == expected for _ in range(20)) else 1)
_, status = os.wait()
print(os.waitstatus_to_exitcode(status), bits() == expected)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_workers_are_as_many_as_asked_for_within_the_machine(kernels: Library, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(3)
    assert kernels.num_threads == 3
    monkeypatch.setattr(library_module, "processors", lambda: 2)
    assert kernels.num_threads == 2
