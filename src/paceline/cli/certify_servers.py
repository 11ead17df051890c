"""`paceline certify --baseline URL --candidate URL`: two servers with OpenAI's API compared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from paceline.cli.chat.commands import parse_param
from paceline.console import printable, progress
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.certify.servers.certificate import ServersCertificate
    from paceline.certify.servers.plan import ServersPlan

_KEY = "OPENAI_API_KEY"
_PANEL: dict[str, Any] = {"rich_help_panel": "Two servers"}

BASELINE = typer.Option(None, metavar="URL", help="The server that is believed.", **_PANEL)
CANDIDATE = typer.Option(None, metavar="URL", help="The server that is judged.", **_PANEL)
NAMES = typer.Option(
    [], "--model", metavar="NAME", help="For both, or given twice.", show_default="the first that each lists", **_PANEL
)
ENDPOINT = typer.Option(None, metavar="NAME", help="completions or chat.", show_default="completions", **_PANEL)
NUM_SAMPLES = typer.Option(
    None, help="Samples of each prompt; of the baseline twice as many.", show_default="60", **_PANEL
)
SAMPLE_TOKENS = typer.Option(None, help="Tokens of a sample.", show_default="3", **_PANEL)
CONCURRENCY = typer.Option(None, help="Requests at once.", show_default="8", **_PANEL)
FIELDS = typer.Option(
    [], "--field", metavar="NAME=VALUE", help="Further field of every request; may be repeated.", **_PANEL
)
API_KEYS = typer.Option(
    [], "--api-key", metavar="KEY", help="For both, or given twice.", show_default=f"${_KEY}, if set", **_PANEL
)


def make_plan(
    urls: tuple[str | None, str | None], models: list[str], prompts: Path | None, fields: list[str], **sizes: Any
) -> ServersPlan:
    """The plan of what a user gave; `sizes` are further attributes of the plan, those that are None left out.

    Raises:
        ConfigError: what is wrong with it.
    """
    from paceline.certify.servers.plan import ServersPlan
    from paceline.client import base_url
    from paceline.text.prompt_sets import read_prompt_set

    baseline, candidate = urls
    if baseline is None or candidate is None:
        raise ConfigError("one of --baseline and --candidate is missing; allowed: both, or neither")
    names = pair(models, "--model")
    texts = tuple(prompt.text for prompt in read_prompt_set(prompts or "bundled").prompts)
    given = {name: value for name, value in sizes.items() if value is not None}
    more = dict(parse_param(item) for item in fields)
    return ServersPlan(base_url(baseline), base_url(candidate), names, prompts=texts, fields=more, **given)


def pair(given: list[str], name: str) -> tuple[str | None, str | None]:
    """The baseline's and the candidate's of an option that may be given once for both, or twice."""
    if len(given) > 2:
        raise ConfigError(f"{name} is given {len(given)} times; allowed: once, or for the baseline and the candidate")
    return (given[0], given[-1]) if given else (None, None)


def compare(plan: ServersPlan, api_keys: list[str]) -> ServersCertificate:
    """The certificate, under a progress bar."""
    from paceline.certify.servers.run import certify_servers
    from paceline.certify.servers.trials import Trials

    keys = pair(api_keys or [key for key in [os.environ.get(_KEY)] if key], "--api-key")
    with progress("asking", Trials.num_requests(plan)) as bar:
        return certify_servers(plan, keys, lambda what, done: bar.update(done, what))


def summarise(found: dict[str, Any], place: Path) -> None:
    """The certificate on a terminal."""
    from paceline.certify.servers.certificate import claim

    console = Console(highlight=False)
    colour = {"PASS": "green", "FAIL": "red", "VOID": "yellow"}[found["verdict"]]
    servers = found["servers"]
    console.print(f"[bold {colour}]{found['verdict']}[/]", end="  ")
    lines = [f"{servers['candidate']['url']} beside {servers['baseline']['url']}", claim(found)]
    lines += [_parting(one) for one in found["greedy"]["partings"][:3]]
    lines += found["notes"]
    lines.append(f"{found['seconds']:.0f} s · {place} · {place.with_suffix('.json')}")
    for line in lines:
        console.print(printable(line), markup=False, soft_wrap=True)


def _parting(one: dict[str, Any]) -> str:
    where = f"character {one['character']}" + (f", token {one['token']}" if one["token"] is not None else "")
    texts = f"{one['before'][-20:]!r} goes on with {one['baseline'][:20]!r} and with {one['candidate'][:20]!r}"
    margin = one["baseline_margin"]
    return f"prompt {one['prompt'] + 1}, {where}: {texts}" + ("" if margin is None else f"; margin {margin:.3g}")
