"""The optional extension: where it cannot be compiled, the installation goes on without it."""

import sys
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("src/paceline/native/csrc")
# Fused multiply-add is written where it is meant: the compiler must not make or split any by itself. And memory is
# read as another type than it was written (pairs of bfloat16 in a float), which it must not take for a mistake.
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden"]

kernels = Extension(
    "paceline.native._kernels",
    sources=sorted(str(path) for path in FOLDER.glob("*.c")),
    depends=sorted(str(path) for path in FOLDER.glob("*.h")),
    extra_compile_args=FLAGS,
    optional=True,
)

setup(ext_modules=[] if sys.platform == "win32" else [kernels])
