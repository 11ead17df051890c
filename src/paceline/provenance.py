"""Where a figure comes from: the command, the code, the versions and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers

from paceline._version import __version__

_SETTINGS = ("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES")


def provenance(device: torch.device) -> dict[str, Any]:
    """All that is needed to repeat a measurement, and to know how quiet the machine was."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {
            "paceline": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": numpy.__version__,
        },
        "device": str(device),
        "processor": processor(device),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "has_bfloat16": has_bfloat16(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "environment": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


def fingerprint(model_digest: str, numerics: Mapping[str, Any]) -> str:
    """16 hexadecimal digits for all that the bytes of an output depend on beside its request.

    Args:
        model_digest: of weights and settings, as `Target` gives it.
        numerics: the numeric path, as `Target` gives it; dtype, threads and torch's release are part of it.
    """
    releases = {"paceline": __version__, "transformers": transformers.__version__}
    what = json.dumps([model_digest, dict(numerics), releases], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def model_fingerprint(model_digest: str) -> str:
    """16 hexadecimal digits for a model's weights and settings alone, however and wherever it is run."""
    return hashlib.sha256(model_digest.encode()).hexdigest()[:16]


def processor(device: torch.device) -> str:
    """The name of the GPU, or of the CPU as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def has_bfloat16(device: torch.device) -> bool:
    """True if the processor has bfloat16 instructions that torch's matrix products use."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, "+" if changed since; None outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", "_version.py")  # an installed copy may lie in another's checkout
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
