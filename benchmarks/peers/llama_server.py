"""llama-server, built from the sources of llama.cpp that llama-cpp-python brings: its wheel has the library alone.

Needs cmake and a C++ compiler; some ten minutes on 2 cores.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from peers.install import CannotInstallError, why

VERSION = "0.3.36"  # of llama-cpp-python, as in recipes.py
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be downloaded
}


def llama_server(cache: Path) -> Path:
    """The program, built if it is not there.

    Raises:
        CannotInstallError: with the line that says why; all that was said is in `cache/llama-server.log`.
    """
    program = cache / f"llama-server-{VERSION}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            built = _build(Path(folder), cache / "llama-server.log")
            shutil.move(built, program)
    return program


def _build(folder: Path, log: Path) -> Path:
    log.write_text("")
    packages = ["--no-deps", "--no-binary", ":all:", f"llama-cpp-python=={VERSION}"]
    _run([sys.executable, "-m", "pip", "download", "--dest", str(folder), *packages], log)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    build = folder / "build"
    options = [f"-D{name}={value}" for name, value in _OPTIONS.items()]
    _run(["cmake", "-S", str(source), "-B", str(build), *options], log)
    _run(["cmake", "--build", str(build), "--target", "llama-server", "--parallel", "2"], log)
    return build / "bin" / "llama-server"


def _run(command: list[str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
        except FileNotFoundError as error:
            raise CannotInstallError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        raise CannotInstallError(why(log.read_text(encoding="utf-8", errors="replace")) or f"{command[0]} failed")
