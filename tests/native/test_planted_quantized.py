"""Faults planted in the source of quantised kernels are caught by what test_quantized.py compares."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from native.blocks import linear, parts_of, random_blocks
from native.sets import all_sets
from native.test_quantized import drawn, product
from paceline.formats.blocks import BlockRows, BlockType
from paceline.native import library as library_module
from paceline.native.layout import MAX_LANES
from paceline.native.quantized import QuantizedWeight

SOURCES = Path(library_module.__file__).parent / "csrc"
pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or "avx2" not in [found.name for found in all_sets()], reason="no gcc, or no AVX2"
)


@dataclass(frozen=True)
class Fault:
    """One place in a header that says something else, and the kinds of blocks that are then wrong."""

    header: str
    right: str
    wrong: str
    kinds: tuple[BlockType, ...]


SIGNED = "_mm256_madd_epi16(products, ones)"
WITH_MINIMUM = (BlockType.Q4_1, BlockType.Q4_Z, BlockType.Q4_K, BlockType.Q5_K)
FAULTS = {
    "two rows share a scale": Fault(
        "quantize.h",
        "quantize_group((const float *)from + g * GROUP, to + g);",
        "quantize_group((const float *)from + g * GROUP, to + g);"
        "if (r % 2) to[g].d = ((const Inputs *)(out->data + (r - 1) * out->strides[0]))[g].d;",
        tuple(BlockType),
    ),
    "sums of pairs saturate": Fault(
        "int_avx2.h",
        "const int at_once = 32767 / (2 * 127 * max_code);",
        "const int at_once = 8;\n#define _mm256_add_epi16 _mm256_adds_epi16\n",
        (BlockType.Q5_K, BlockType.Q6_K),
    ),
    "codes with 128 added saturate": Fault(
        "int_avx2.h",
        SIGNED,
        "_mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(w[h], _mm256_set1_epi8(-128)), bytes), ones));"
        "sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(-128), bytes), ones)",
        (BlockType.Q8_0, BlockType.Q8_F),
    ),
    "a minimum is forgotten": Fault("quantized.h", "vf_fused(s.minimum, vf_set1(x->sum), sum)", "sum", WITH_MINIMUM),
    "groups are added in another order": Fault(
        "quantized.h",
        "for (int64_t u = 0; u < units; u += at_once) {",
        "for (int64_t u = (units - 1) / at_once * at_once; u >= 0; u -= at_once) {",
        tuple(BlockType),
    ),
}


class Kernels:
    """Kernels that were compiled here: as much of a `Library` as quantised weights need."""

    def __init__(self, path: Path) -> None:
        self._run = ctypes.CDLL(str(path)).planted_run
        self._run.argtypes, self._run.restype = [ctypes.c_void_p, ctypes.c_void_p], None

    def scratch_bytes(self, op: Any) -> int:
        return 64 * 32 * 4

    def advise(self, memory: torch.Tensor) -> None:
        pass

    def run(self, ops: Any, count: int, scratch_bytes: int, scratch: Callable[[int], torch.Tensor]) -> None:
        memory = scratch(scratch_bytes + 4 * MAX_LANES)
        for op in ops:
            self._run(ctypes.addressof(op), memory.data_ptr())


def compiled(folder: Path, fault: Fault | None, *more: str) -> Kernels:
    for source in SOURCES.glob("*.h"):
        text = source.read_text()
        if fault is not None and source.name == fault.header:
            assert text.count(fault.right) == 1, f"{fault.header} has changed: this fault is planted nowhere"
            text = text.replace(fault.right, fault.wrong)
        (folder / source.name).write_text(text)
    flags = ["-O0", "-w", "-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-mavx2", "-mfma", "-mf16c"]
    command = ["gcc", *flags, *more, "-shared", "-fPIC", f"-I{folder}", "-o", folder / "planted.so"]
    subprocess.run([*command, Path(__file__).with_name("planted.c"), "-lm"], check=True)
    return Kernels(folder / "planted.so")


@functools.cache
def cases(kind: BlockType) -> list[tuple[BlockRows, torch.Tensor, np.ndarray]]:
    """Random codes and the largest, in more units than are taken at a time; inputs, and what comes of them."""
    x = drawn(5, 1280)
    x[3] = 1.0
    made = [random_blocks(kind, 33, 1280, byte=byte) for byte in (None, 0x7F, 0xFF)]
    return [(blocks, x, linear(parts_of(blocks), x.numpy())) for blocks in made]


def is_right(kernels: Kernels, kind: BlockType) -> bool:
    made = [(product(QuantizedWeight(kernels, blocks), x), wanted) for blocks, x, wanted in cases(kind)]  # type: ignore[arg-type]
    return all(np.array_equal(ours, wanted) for ours, wanted in made)


def test_kernels_without_a_fault_are_right(tmp_path: Path):
    kernels = compiled(tmp_path, None)
    assert [kind.name for kind in BlockType if not is_right(kernels, kind)] == []


@pytest.mark.skipif("avx512-vnni" not in [found.name for found in all_sets()], reason="no dot product of bytes")
def test_the_dot_product_of_32_bytes_is_right(tmp_path: Path):
    """The code of "avx2-vnni", on processors that have its instruction in the encoding of AVX-512 alone."""
    kernels = compiled(tmp_path, None, "-DWITH_DOT_BYTES", "-mavx512vnni", "-mavx512vl")
    assert [kind.name for kind in BlockType if not is_right(kernels, kind)] == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_where_it_is(name: str, tmp_path: Path):
    fault = FAULTS[name]
    kernels = compiled(tmp_path, fault)
    assert [kind for kind in BlockType if not is_right(kernels, kind)] == list(fault.kinds)
