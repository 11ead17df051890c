"""`paceline generate`: print a continuation as it is decoded, then one line of facts."""

from __future__ import annotations

import sys
import time
from json import dumps, loads  # `json` is an option below
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from paceline.cli.explain import show_explanation
from paceline.cli.loading import fitting, load_with_progress, prefill_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, HEAD, MODEL, SLOWDOWN, parse_drafters
from paceline.errors import ConfigError
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.engine.stats import Stats
    from paceline.output import Output
    from paceline.streams import Stream

_COLOURS = ("green", "cyan", "magenta", "yellow", "blue")  # by drafter, in the order they first appear


def generate(
    prompt: str = typer.Argument(help="The text to continue; - reads it from standard input."),
    model: str = MODEL,
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    head: str = HEAD,
    max_tokens: int = typer.Option(256, min=1, help="Most tokens to generate."),
    temperature: float = typer.Option(0.0, help="0 is greedy."),
    top_k: int = typer.Option(0, help="Keep the k likeliest tokens; 0 keeps all."),
    top_p: float = typer.Option(1.0, help="Keep the likeliest tokens up to this probability."),
    seed: int = typer.Option(None, help="Same seed, same text.", show_default="drawn"),
    stop: list[str] = typer.Option([], metavar="TEXT", help="End the text before this string; may be repeated."),
    regex: str = typer.Option(None, metavar="REGEX", help="The text matches this regular expression."),
    choice: list[str] = typer.Option(
        [], metavar="TEXT", help="The text is this, or another --choice; may be repeated."
    ),
    json_schema: str = typer.Option(None, metavar="FILE", help="A JSON schema, or a file of one; the text follows it."),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_slowdown: float = SLOWDOWN,
    num_speculative_tokens: int = typer.Option(None, help="Most draft tokens a step.", show_default="as many as pay"),
    prediction: str = typer.Option(None, metavar="FILE", help="The probable output; it changes the speed alone."),
    explain: bool = typer.Option(False, "--explain", help="Say what each drafter brought, and why the pacer stopped."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
    quiet: bool = typer.Option(False, "--quiet", help="Print the continuation alone."),
) -> None:
    """Continue PROMPT: exactly the text of plain decoding, sooner."""
    text = sys.stdin.read() if prompt == "-" else prompt
    chosen = parse_drafters(drafters)
    sampling: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k}
    sampling |= {"top_p": top_p, "seed": seed, "stop": stop, "regex": regex, "choice": choice or None}
    sampling["response_format"] = parse_schema(json_schema) if json_schema else None
    SamplingParams(**sampling)  # refused before the model is loaded
    started = time.perf_counter()
    expected = read_prediction(prediction) if prediction else None
    loading: dict[str, Any] = {
        "drafters": chosen,
        "draft_model": draft_model,
        "head": head,
        "dtype": dtype,
        "device": device,
    }
    loading |= {"max_slowdown": max_slowdown, "num_speculative_tokens": num_speculative_tokens}
    with load_with_progress(model, **loading) as llm:
        load_seconds = time.perf_counter() - started
        ids = llm.encode(text)
        sampling["max_tokens"] = fitting(llm, len(ids), max_tokens)
        with prefill_progress(llm, len(ids)):
            if json:
                print(to_json(llm.generate(ids, prediction=expected, **sampling), load_seconds))
                return
            stream = llm.stream(ids, prediction=expected, **sampling)
            show(stream, sys.stdout, quiet)
    if explain:
        show_explanation(stream.output.stats, Console(stderr=True, highlight=False, soft_wrap=True))


def parse_schema(given: str) -> dict[str, Any]:
    """The API's form of --json-schema, which is a file or, if it begins with a brace, the schema itself."""
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
        return {"type": "json_schema", "json_schema": {"name": "schema", "schema": loads(text)}}
    except (OSError, ValueError) as error:
        raise ConfigError(f"--json-schema is {given!r}: {error}; allowed: a file with a JSON schema, or one") from error


def read_prediction(path: str) -> str:
    """The text of --prediction."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--prediction is {path!r}: {error}; allowed: a text file") from error


def show(stream: Stream, out: TextIO, quiet: bool) -> None:
    """Print a text as it is decoded, and unless `quiet` one line of facts to standard error."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    colours: dict[str, str] = {}
    try:
        for token in stream:
            console.print(coloured(token.text, token.source, colours), end="")
            out.flush()
    except KeyboardInterrupt:
        stream.close()
        _finish(console, stream.output, colours, quiet)
        raise
    _finish(console, stream.output, colours, quiet)


def coloured(text: str, source: str, colours: dict[str, str]) -> Text:
    """A token's text in the colour of its drafter; `colours` by drafter grows as they appear."""
    if source == "target":
        return Text(text)
    colour = colours.setdefault(source, _COLOURS[len(colours) % len(_COLOURS)])
    return Text(text, style=colour)


def _finish(console: Console, output: Output, colours: dict[str, str], quiet: bool) -> None:
    console.print()
    if not quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(facts(output, colours))


def facts(output: Output, colours: dict[str, str]) -> Text:
    """One line: tokens, seconds, tokens/s, mean acceptance length, who earned what."""
    stats = output.stats
    seconds = stats.prefill_seconds + stats.decode_seconds
    line = Text(
        f"{stats.num_emitted_tokens} tokens in {seconds:.2f} s · {stats.tokens_per_second:.0f} tokens/s · "
        f"{stats.mean_acceptance_length:.2f} tokens a step · seed {output.seed} · {output.finish_reason}"
    )
    return line + earned(stats, colours)


def earned(stats: Stats, colours: dict[str, str]) -> Text:
    """Accepted and proposed draft tokens of each drafter, in its colour."""
    line = Text()
    for name, drafter in stats.drafters.items():
        if drafter.num_draft_tokens:
            counts = f" · {name} {drafter.num_accepted_draft_tokens}/{drafter.num_draft_tokens}"
            line.append(counts, style=colours.get(name, ""))
    return line


def to_json(output: Output, load_seconds: float) -> str:
    """The object that `--json` prints."""
    fields = {"text": output.text, "token_ids": output.token_ids, "finish_reason": output.finish_reason}
    return dumps(fields | {"seed": output.seed, "stats": output.stats.as_dict() | {"load_seconds": load_seconds}})
