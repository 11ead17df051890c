"""What the contenders of `step.py --quantize` are called in its results; read without torch."""

from __future__ import annotations

OURS, THEIRS = "Paceline", "llama.cpp"
READING, PLAIN = "reading", "Paceline bfloat16"


def name(engine: str, mix: str, rows: int) -> str:
    """A contender's name."""
    return f"{engine} {mix} {rows}"
