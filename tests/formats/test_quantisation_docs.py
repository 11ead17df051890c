"""docs/quantisation.md names every kind of blocks, type of GGUF and method, and says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from paceline.formats.blocks import BlockType
from paceline.formats.checkpoints import FORMATS
from paceline.formats.gguf.kinds import NAMED
from paceline.formats.gguf.names import NAMINGS
from paceline.native.quantized import UNITS

PAGE = (Path(__file__).parents[2] / "docs" / "quantisation.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    rows = [line for line in PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_kinds_of_blocks_and_their_bits() -> None:
    said = {row[0].strip("`"): float(row[1]) for row in table("What is computed")}
    bits = {kind.name: 8 * UNITS[kind].num_bytes / (32 * UNITS[kind].features) for kind in BlockType}
    assert set(said) == set(bits)
    assert all(abs(said[name] - bits[name]) <= 0.005 for name in bits)


def test_types_of_gguf() -> None:
    said = {name: row for row in table("GGUF") for name in row[0].split(", ")}
    assert set(said) == set(NAMED)
    for name, kind in NAMED.items():
        if kind.dtype is not None:
            continue
        own = kind.as_it_is is not None
        assert ("the same" in said[name][2]) == (own or kind.is_exact), name
        assert own == (said[name][1] == "the same"), name
        assert own or kind.becomes.split(" or ")[0] in said[name][1], name


def test_methods_and_architectures() -> None:
    said = {name for row in table("Hugging Face checkpoints") for name in re.findall(r"`([\w-]+)`", row[0])}
    assert said == set(FORMATS)
    names = PAGE.split("Architectures: ")[1].split("Others are refused")[0]
    assert set(re.findall(r"\w+", names.replace("(Mistral too)", ""))) | {"mistral"} >= set(NAMINGS)
