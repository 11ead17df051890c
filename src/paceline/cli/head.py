"""`paceline head`: what lies in a folder with a head, and how much of what a model says it foresees."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paceline.bundled import DEFAULT_TARGET, bundled_path
from paceline.cli.options import DEVICE, DTYPE, MODEL
from paceline.console import Table, printable, progress, show
from paceline.errors import ModelError

if TYPE_CHECKING:
    from paceline.heads.adopting import Adopted

_DEPTHS = (2, 4, 7)  # of chains, of which is said what they would bring


def head(
    folder: Path = typer.Argument(..., metavar="FOLDER", help="With a head's config.json and safetensors."),
    model: str = MODEL,
    dtype: str = DTYPE,
    device: str = DEVICE,
) -> None:
    """Try a published head on a model: how its files are to be read, and what it would bring."""
    name = model or DEFAULT_TARGET
    with progress("reading PyTorch and transformers") as bar:
        from paceline.heads.adopting import adopt
        from paceline.heads.prompting import prompts_for
        from paceline.model.hosting import Host
        from paceline.model.loading import load_target

        bar.update(0.0, f"loading {name}")
        target, _ = load_target(bundled_path(name) or name, dtype=dtype, device=device)
        bar.update(0.0, "trying the head")
        found = adopt(folder, None, Host(target), prompts_for(_tokenizer(name, target)), is_probed=True)
    show(_table(folder, found))


def _tokenizer(name: str, target: Any) -> Any:
    from paceline.text.tokenizer import load_tokenizer

    with suppress(ModelError):  # the head is tried on made-up tokens then
        found = load_tokenizer(bundled_path(name) or name, target, trust_remote_code=False)
        return None if found is None else found.inner
    return None


def _table(folder: Path, adopted: Adopted) -> Table:
    found, fit = adopted.found, adopted.fit
    assert fit is not None, "it was tried"
    table = Table(f"{found.kind}: {found.layout}", ("", "its files say", "it means"))
    for name, stated in adopted.stated.items():
        table.rows.append((name, _said(stated), _said(fit.reading[name])))
    if found.made_for:
        table.notes.append(f"It says that it was made for {printable(found.made_for)!r}.")
    seen = f"{fit.first:.0%} at the first drafted token, {fit.second:.0%} behind it"
    table.notes.append(f"Overlap with the model: {seen}.")
    chains = ", ".join(f"{chain(fit.first, fit.second, depth):.2f} of {depth}" for depth in _DEPTHS)
    table.notes.append(f"Tokens a step that chains of drafts would bring at most: {chains}.")
    table.notes.append(f"paceline generate --drafters {found.kind}:path={folder}")
    return table


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def chain(first: float, second: float, depth: int) -> float:
    """Tokens of a step with a chain of drafts, the bonus included; all behind the first are foreseen as the second."""
    reached, tokens = 1.0, 1.0
    for place in range(depth):
        reached *= first if place == 0 else second
        tokens += reached
    return tokens
