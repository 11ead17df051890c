"""The optional extension: where it cannot be compiled, the installation goes on without it."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


class ParallelBuild(build_ext):
    """Compiles the files of an extension side by side: one for each instruction set takes long."""

    def build_extension(self, extension):
        """Compile, then link as setuptools does."""
        compile_all = self.compiler.compile

        def compile_each(sources, *args, **options):
            with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
                objects = threads.map(lambda source: compile_all([source], *args, **options), sources)
                return [name for each in objects for name in each]

        self.compiler.compile = compile_each
        super().build_extension(extension)


setup(cmdclass={"build_ext": ParallelBuild}, ext_modules=[] if sys.platform == "win32" else [kernels])
