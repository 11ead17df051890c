"""The weights of llama-server: checkpoint and draft model as GGUF files with their vocabulary. Only exports."""

from __future__ import annotations

from pathlib import Path

from peers.protocol import Modes, Target, serve

OWN, DRAFT = "model.gguf", "draft.gguf"


def export(target: Target) -> None:
    """Write the weights as they are."""
    _write(target.folder, Path(target.exports) / OWN)
    if target.draft is not None:
        _write(target.draft, Path(target.exports) / DRAFT)


def modes(target: Target) -> Modes:
    """None: the server is a process of its own (peers/servers.py)."""
    return {}


def _write(folder: str, path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from paceline.formats.gguf.writer import unsupported, write_gguf

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if (why := unsupported(model)) is not None:
        raise ValueError(why)
    write_gguf(model, path, AutoTokenizer.from_pretrained(folder))


if __name__ == "__main__":
    serve(modes, ["gguf"], export)
