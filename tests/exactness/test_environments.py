"""Several threads, and older instruction sets: each setting against plain decoding under the same setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Threads that wait asleep: with more of them than cores, busy waiting takes a thousand times as long.
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, str]]] = {
    "threads": ((2, 3), {}),
    "threads-pytorch": ((3,), {"PACELINE_NATIVE": "0"}),
    "portable": ((2,), {"PACELINE_NATIVE": "portable"}),
    "pytorch-avx2": ((1,), {"PACELINE_NATIVE": "0", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
}


@pytest.fixture(scope="module")
def isolated() -> Iterator[subprocess.Popen[str]]:
    """A process that has read all code and done nothing yet; each setting is tried in a fork of it."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "ONEDNN_"))}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "exactness.isolated"],
        cwd=Path(__file__).parents[1],
        env={**unset, **ASLEEP},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("name", SETTINGS)
def test_no_bit_changes_under(name: str, isolated: subprocess.Popen[str]) -> None:
    threads, setting = SETTINGS[name]
    assert isolated.stdin is not None
    assert isolated.stdout is not None
    print(json.dumps([threads, setting]), file=isolated.stdin, flush=True)
    assert json.loads(isolated.stdout.readline()) == [f"{count} threads checked" for count in threads]
