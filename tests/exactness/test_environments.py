"""Several threads, and older instruction sets: each setting against plain decoding under the same setting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Threads that wait asleep: with more of them than cores, busy waiting takes a thousand times as long.
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize(
    ("threads", "setting"),
    [
        ((2, 3), {}),
        ((3,), {"PACELINE_NATIVE": "0"}),
        ((2,), {"PACELINE_NATIVE": "portable"}),
        ((1,), {"PACELINE_NATIVE": "0", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ],
    ids=["threads", "threads-pytorch", "portable", "pytorch-avx2"],
)
def test_no_bit_changes_under(threads: tuple[int, ...], setting: dict[str, str]):
    command = [sys.executable, "-W", "error", "-m", "exactness.isolated", *map(str, threads)]
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "ONEDNN_"))}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**unset, **ASLEEP, **setting},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [f"{count} threads checked" for count in threads], done.stderr
    assert done.returncode == 0
