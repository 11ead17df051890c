"""The `paceline` command. Arguments are parsed here and nothing else happens here."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

import typer

from paceline import __version__
from paceline.bench.cli import app as bench
from paceline.cli.calibrate import calibrate
from paceline.cli.catalogue import drafters, models
from paceline.cli.certify import certify
from paceline.cli.chat import chat
from paceline.cli.convert import convert
from paceline.cli.demo import demo
from paceline.cli.doctor import doctor
from paceline.cli.generate import generate
from paceline.cli.head import head
from paceline.cli.report import report
from paceline.cli.serve import serve
from paceline.cli.train import train
from paceline.cli.translate import translate
from paceline.errors import PacelineError

_INTERRUPTED = 130  # the shell's code for Ctrl-C, and typer's

app = typer.Typer(
    help="Exact speculative decoding of Hugging Face's language models: the same bytes, sooner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(generate)
app.command()(translate)
app.command()(serve)
app.command()(chat)
app.command()(drafters)
app.command()(models)
app.command()(convert)
app.command()(report)
app.command()(calibrate)
app.command()(doctor)
app.command()(certify)
app.command()(train)
app.command()(head)
app.add_typer(bench, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paceline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print it."),
) -> None:
    pass


def main() -> None:
    """Run the command line: exit code 2 and one line for what a user can mend, 130 after Ctrl-C."""
    try:
        app()
    except PacelineError as error:
        typer.secho(f"paceline: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _leave()
    except SystemExit as error:  # typer's word for Ctrl-C too
        if error.code == _INTERRUPTED:
            _leave()
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _leave() -> NoReturn:
    """End the process at once: if the interpreter ended under a thread that still reads a model, C++ would abort."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(_INTERRUPTED)
