"""Options that several bench commands share."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.errors import ConfigError


def _in_a_folder(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written before minutes are spent on what it should hold."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigError(f"json is {str(path)!r}; allowed: a file in a folder that exists")
    return path


SUBJECT = typer.Option("bundled", "--model", help="bundled, inflated (to 134 M parameters), a folder or a hub name.")
DTYPE = typer.Option(
    "auto", "--dtype", "--quantize", help="auto (the checkpoint's), float32, bfloat16, float16, int8 or int4."
)
DRAFT_MODEL = typer.Option(
    None,
    "--draft-model",
    help="Another draft model; inflated is the bundled one grown to 14 M.",
    show_default="the one known for the model, if any",
)
DEVICE = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N.")
JSON = typer.Option(None, "--json", callback=_in_a_folder, help="Write all figures and their provenance to this file.")
