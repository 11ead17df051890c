"""`paceline demo`: plain decoding and Paceline race over one text; exit code 1 if their bytes ever differ."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from json import dumps  # `json` is an option below
from typing import TYPE_CHECKING, Any

import typer

from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, draft_model_of
from paceline.cli.demo_view import show_race, show_result
from paceline.cli.loading import fitting, load_grown, load_with_progress
from paceline.cli.race import Racer, first_difference, race, racers
from paceline.errors import ConfigError
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.llm import LLM

_STORY = "Once upon a time, there was a little fox who wanted to learn how to swim."  # the first of the bundled prompts
_DEFAULT_SIZE = "134m"


@dataclass(frozen=True)
class _Model:
    """What races, as the user asked for it; `size` is None where it is not grown."""

    name: str
    draft: str | None
    size: str | None
    dtype: str


def demo(
    prompt: str = typer.Argument(_STORY, help="The text to continue; - reads it from standard input."),
    model: str = typer.Option(None, help="Bundled name, hub name or folder.", show_default="the bundled one, grown"),
    draft_model: str = typer.Option(None, help="Its draft model.", show_default="the one known for it, if any"),
    size: str = typer.Option(None, help="Grow the bundled model to 134m or 1b parameters.", show_default=_DEFAULT_SIZE),
    max_tokens: int = typer.Option(256, min=1, help="Most tokens to generate."),
    temperature: float = typer.Option(0.0, help="0 is greedy."),
    seed: int = typer.Option(0, help="Same seed, same text."),
    dtype: str = typer.Option("auto", help="auto, float32, bfloat16 or float16."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object instead of the race."),
) -> None:
    """Race plain decoding against Paceline on one model: the same bytes, and how much sooner."""
    text = sys.stdin.read() if prompt == "-" else prompt
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)  # refused before loading
    asked = _asked(model, draft_model, size, dtype)
    with _load(asked) as llm:
        ids = llm.encode(text)
        params = params.merged({"max_tokens": fitting(llm, len(ids), max_tokens)})
        with racers(llm, ids, params) as pair:
            if json:
                for _ in race(pair):
                    pass
            else:
                show_race(_heading(llm, asked), text, pair)
        parted = first_difference(*(racer.output for racer in pair))
        if json:
            print(dumps(_as_json(llm, asked, pair)))
    if parted is not None:
        typer.secho(f"paceline: {_difference(pair, parted)}", fg="red", err=True)
        raise typer.Exit(1)
    if not json:
        show_result(pair)


def _asked(model: str | None, draft: str | None, size: str | None, dtype: str) -> _Model:
    if model is not None:
        if size is not None:
            raise ConfigError(f"both --model ({model}) and --size ({size}) are given; allowed: one of them")
        return _Model(model, draft or draft_model_of(model), None, dtype)
    return _Model(DEFAULT_TARGET, draft or DEFAULT_DRAFT, size or _DEFAULT_SIZE, dtype)


def _load(asked: _Model) -> LLM:
    """The model with its costs measured, under a progress bar."""
    options: dict[str, Any] = {"draft_model": asked.draft, "dtype": asked.dtype}
    return load_with_progress(asked.name, **options) if asked.size is None else load_grown(asked.size, **options)


def _heading(llm: LLM, asked: _Model) -> list[str]:
    """Two sentences on what races."""
    info = llm.info
    assert info is not None  # `load` always says
    size = f"{info.num_parameters / 1e6:.0f} M parameters"
    grown = f", grown in memory to {size}: the small model's text, at the cost of a model of that size"
    numerics = f"{info.numerics['dtype']} on {info.numerics['device']}, {info.numerics['threads']} threads"
    return [
        asked.name + (f": {size}." if asked.size is None else f"{grown}."),
        f"{numerics}; {f'draft model {asked.draft}' if asked.draft else 'no draft model'}.",
    ]


def _as_json(llm: LLM, asked: _Model, pair: tuple[Racer, Racer]) -> dict[str, Any]:
    """The object that `--json` prints."""
    plain, ours = pair
    info = llm.info
    assert info is not None  # `load` always says
    return {
        "text": ours.output.text,
        "token_ids": ours.output.token_ids,
        "finish_reason": ours.output.finish_reason,
        "seed": ours.output.seed,
        "same_bytes": first_difference(plain.output, ours.output) is None,
        "plain_seconds": plain.seconds,
        "paceline_seconds": ours.seconds,
        "speed_up": plain.seconds / ours.seconds,
        "mean_acceptance_length": ours.output.stats.mean_acceptance_length,
        "model": asked.name,
        "draft_model": asked.draft,
        "num_parameters": info.num_parameters,
        "is_grown": asked.size is not None,
        "numerics": info.numerics,
    }


def _difference(pair: tuple[Racer, Racer], index: int) -> str:
    plain, ours = (racer.output.token_ids[index : index + 1] for racer in pair)
    return (
        f"the outputs differ from token {index} on: plain decoding has {list(plain)}, Paceline {list(ours)}. "
        "This is a bug; `paceline certify` helps to report it."
    )
