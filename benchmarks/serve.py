"""`paceline bench serve --sweep 1,4,16` on the model grown to 134 M in bfloat16, and below its table each of our goals.

usage: python benchmarks/serve.py [OPTIONS of `paceline bench serve`, which win over those above]

Exit code 0: every line is reached. 1: some line is not, or nothing was measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import goals

from paceline.bench.cli import app

WANTED = ("--model", "inflated", "--dtype", "bfloat16", "--sweep", "1,4,16")


def main(options: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json")
    given, others = parser.parse_known_args(options)
    with tempfile.TemporaryDirectory(prefix="paceline-bench-") as folder:
        file = given.json or str(Path(folder) / "serve.json")
        app(["serve", *WANTED, *others, "--json", file], prog_name="paceline bench", standalone_mode=False)
        return goals.main([file])


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit()
    sys.exit(main(sys.argv[1:]))
