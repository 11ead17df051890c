"""Command-line options that several commands share, and what their values mean."""

from __future__ import annotations

import typer

from paceline.bundled import DEFAULT_TARGET
from paceline.errors import ConfigError
from paceline.pacing import MAX_SLOWDOWN

MODEL = typer.Option(
    None, metavar="MODEL", help="Bundled name, hub name, folder or GGUF file.", show_default=DEFAULT_TARGET
)
DRAFTERS = typer.Option(
    ["auto"],
    metavar="SPEC",
    help="auto, none, or NAME:OPTION=VALUE,... of `paceline drafters`; may be repeated.",
)
DRAFT_MODEL = typer.Option(
    None,
    metavar="MODEL",
    help="A small model, best of the same vocabulary; it joins the automatic drafters.",
    show_default="the one known for the model, if any",
)
HEAD = typer.Option(
    None,
    metavar="FOLDER",
    help="A head on the model's hidden states, of any published layout; it joins the automatic drafters.",
    show_default="the one known for the model, if any",
)
DTYPE = typer.Option(
    "auto",
    "--dtype",
    "--quantize",
    metavar="DTYPE",
    help="auto (the checkpoint's), float32, bfloat16, float16, int8 or int4.",
)
DEVICE = typer.Option("auto", metavar="DEVICE", help="auto (the GPU, if there is one), cpu, cuda or cuda:N.")

SLOWDOWN = typer.Option(MAX_SLOWDOWN, help="Share by which the guard lets decoding be slower than plain.")


def parse_drafters(given: list[str]) -> str | list[str]:
    """The API's form of --drafters: "auto" or "none" alone, else a list.

    Commas separate names as far as the first colon: `suffix,recycle:width=4` is two drafters. Behind it they are
    the drafter's own, whose options say where they end.

    Raises:
        ConfigError: "none" beside others, or what `make` refuses, before any model is loaded.
    """
    from paceline.drafters import make

    names = [name for item in given for name in _split(item)]
    if not names:
        raise ConfigError(f"--drafters is {', '.join(given)!r}; allowed: auto, none, or drafters")
    if names in (["auto"], ["none"]):
        return names[0]
    if "none" in names:
        raise ConfigError(f"--drafters is {', '.join(names)}; 'none' stands alone")
    for name in names:
        if name != "auto":
            make(name)
    return names


def _split(item: str) -> list[str]:
    head, colon, options = item.partition(":")
    names = [name.strip() for name in head.split(",") if name.strip()]
    return [*names[:-1], names[-1] + colon + options] if names else []
