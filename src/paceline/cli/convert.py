"""`paceline convert`: a model as a GGUF file, which llama.cpp runs too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paceline.console import ProgressBar, Table, progress, show
from paceline.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M")


def convert(
    model: str = typer.Argument(..., help="Bundled name, hub name or folder."),
    out: Path = typer.Argument(..., metavar="OUT.gguf", help="The file to write."),
    kind: str = typer.Option(
        None, "--type", metavar="TYPE", help=f"Of the matrices: {', '.join(_TYPES)}.", show_default="the model's own"
    ),
    force: bool = typer.Option(False, "--force", help="Write over a file that is there."),
) -> None:
    """Write a model as a GGUF file, with its tokenizer and chat template."""
    _check(out, kind, force)
    with progress("reading PyTorch and transformers") as bar, _replacing(out) as part:
        _write(model, part, kind, bar)
    _show(out)


def _check(out: Path, kind: str | None, force: bool) -> None:
    if kind is not None and kind not in _TYPES:
        raise ConfigError(f"--type is {kind!r}; allowed: {', '.join(_TYPES)}")
    if out.is_dir() or not out.parent.is_dir():
        raise ConfigError(f"cannot write {str(out)!r}; allowed: a file in a folder that is there")
    if out.exists() and not force:
        raise ConfigError(f"{str(out)!r} is there; allowed: another name, or --force to write over it")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file beside `out` that takes its place in the end, or leaves nothing behind."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"cannot write {str(out)!r}: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _write(name: str, part: Path, kind: str | None, bar: ProgressBar) -> None:
    from paceline.formats.gguf import writer
    from paceline.model.loading import parse_device
    from paceline.model.pretrained import read_model

    writer.gguf_package()
    bar.update(0.0, f"loading {name}")
    model = read_model(os.path.expanduser(name), "auto", parse_device("cpu"))
    if (why := writer.unsupported(model)) is not None:
        raise ModelError(f"cannot write {name!r} as GGUF: {why}")
    tokenizer = _tokenizer(name, model.config)
    with progress(f"writing {name}", sum(1 for _ in writer.tensors(model))) as advance:
        writer.write_gguf(model, part, tokenizer, _types(model, kind), advance)


def _types(model: PreTrainedModel, kind: str | None) -> Callable[[str, Any], str] | None:
    """What says the type of a matrix: one for all, a mix, or None for the model's own."""
    from paceline.formats.gguf.writer import types_of_mix

    if kind is None:
        return None
    return types_of_mix(model, "int4") if kind == "Q4_K_M" else lambda *_: kind


def _tokenizer(name: str, config: Any) -> PreTrainedTokenizerBase | None:
    from paceline.text.tokenizer import load_tokenizer

    found = load_tokenizer(os.path.expanduser(name), config, trust_remote_code=False)
    return None if found is None else found.inner


def _show(out: Path) -> None:
    from paceline.formats.gguf import open_gguf
    from paceline.formats.gguf.describe import describe

    kinds = describe(open_gguf(out).reader)
    total = sum(kind.weights for kind in kinds)
    table = Table(f"{out}: {out.stat().st_size / 1e6:.1f} MB", ("type", "tensors", "weights", "share", "bits a weight"))
    for kind in kinds:
        figures = (str(kind.tensors), str(kind.weights), f"{kind.weights / total:.1%}", f"{kind.bits_per_weight:.2f}")
        table.rows.append((kind.name, *figures))
    show(table)
