"""The held-out commands with their true answers that come with Paceline, for `paceline report --evaluate`.

python recipes/tiny/held_out.py --corpora ../shared/corpora --count 20 > src/paceline/bundled/commands.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from data import commands, unique


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--count", type=int, default=20, help="commands of each intent, evenly spread over its file")
    arguments = parser.parse_args()
    for path in sorted(arguments.corpora.glob("snips/validate_*.gz")):
        documents = unique(list(commands(path)))
        count = min(arguments.count, len(documents))
        for i in range(count):
            command, answer = documents[i * len(documents) // count].split("\nJSON: ")
            line = {"command": command.removeprefix("Command: "), **json.loads(answer)}
            print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
