"""`paceline certify`: the promise checked on this machine; exit code 0 for PASS, 1 for FAIL or VOID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console

from paceline.bundled import DEFAULT_TARGET
from paceline.cli.certificates import conclude
from paceline.cli.certify_servers import (
    API_KEYS,
    BASELINE,
    CANDIDATE,
    CONCURRENCY,
    ENDPOINT,
    FIELDS,
    NAMES,
    NUM_SAMPLES,
    SAMPLE_TOKENS,
    compare,
    make_plan,
    summarise,
)
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, parse_drafters
from paceline.console import progress
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.certify.certificate import Certificate
    from paceline.certify.plan import CertifyPlan
    from paceline.certify.servers.plan import ServersPlan


def certify(
    model: str = typer.Argument(None, help="Bundled name, hub name or folder.", show_default=DEFAULT_TARGET),
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    prompts: Path = typer.Option(None, help='Lines {"category": ..., "prompt": ...}.', show_default="bundled"),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_tokens: int = typer.Option(None, min=8, help="Most tokens of every output.", show_default="48, fewer if slow"),
    seed: int = typer.Option(0, help="Where all seeds come from."),
    seconds: float = typer.Option(75.0, min=0.1, help="About how long; the least coverage is done in any case."),
    out: Path = typer.Option(None, help="The certificate; its JSON lies beside it.", show_default="certificate.html"),
    json: bool = typer.Option(False, "--json", help="Print the JSON object instead of a summary."),
    verify: Path = typer.Option(None, help="Run this certificate again, HTML or JSON, and compare.", metavar="FILE"),
    baseline: str = BASELINE,
    candidate: str = CANDIDATE,
    names: list[str] = NAMES,
    endpoint: str = ENDPOINT,
    num_samples: int = NUM_SAMPLES,
    sample_tokens: int = SAMPLE_TOKENS,
    concurrency: int = CONCURRENCY,
    fields: list[str] = FIELDS,
    api_keys: list[str] = API_KEYS,
) -> None:
    """Check on this machine that speculative decoding of MODEL emits plain decoding's bytes: PASS or FAIL.

    With --baseline and --candidate it compares two servers with OpenAI's API instead.
    """
    if baseline is not None or candidate is not None:
        if model is not None or verify is not None:
            raise ConfigError("MODEL or --verify is given beside two servers; allowed: servers alone")
        sizes = {"endpoint": endpoint or "completions", "max_tokens": max_tokens, "num_samples": num_samples}
        sizes |= {"sample_tokens": sample_tokens, "seed": seed, "concurrency": concurrency}
        servers_plan = make_plan((baseline, candidate), names, prompts, fields, **sizes)
        _certify_servers(servers_plan, api_keys, _place(out, None), json)
    if verify is not None and model is not None:
        raise ConfigError(f"both MODEL ({model}) and --verify are given; allowed: one of them")
    place = _place(out, verify)
    if verify is None:
        plan = _plan(
            model, (parse_drafters(drafters), draft_model), prompts, (dtype, device), (max_tokens, seed, seconds)
        )
        certificate = _certify(plan)
    else:
        certificate = _verify(verify)
    from paceline.certify.page import page

    conclude(certificate, place, page, None if json else _summarise)


def _certify_servers(plan: ServersPlan, api_keys: list[str], place: Path, is_json: bool) -> NoReturn:
    from paceline.certify.servers.certificate import page

    conclude(compare(plan, api_keys), place, page, None if is_json else summarise)


def _place(out: Path | None, verify: Path | None) -> Path:
    """Where the certificate goes; one that is verified is not overwritten."""
    default = Path("certificate.html") if verify is None else Path(f"{verify.stem}-verified.html")
    place = out or default
    if place.suffix != ".html" or not place.parent.is_dir():
        raise ConfigError(f"--out is {str(place)!r}; allowed: a file ending in .html, in a folder that exists")
    return place


def _plan(
    model: str | None,
    drafting: tuple[str | list[str], str | None],
    prompts: Path | None,
    numerics: tuple[str, str],
    amounts: tuple[int | None, int, float],
) -> CertifyPlan:
    from paceline.certify.plan import CertifyPlan
    from paceline.text.prompt_sets import read_prompt_set

    chosen, draft_model = drafting
    names = () if chosen == "none" else None if chosen == "auto" else tuple(chosen)
    texts = tuple(prompt.text for prompt in read_prompt_set(prompts or "bundled").prompts)
    dtype, device = numerics
    max_tokens, seed, seconds = amounts
    return CertifyPlan(
        model or DEFAULT_TARGET, dtype, device, names, texts, max_tokens, seed, seconds, draft_model=draft_model
    )


def _certify(plan: CertifyPlan) -> Certificate:
    with progress("loading", 1.0) as bar:
        from paceline.certify.run import certify

        return certify(plan, lambda what, share: bar.update(share, what))


def _verify(file: Path) -> Certificate:
    from paceline.certify.plan import read_certificate

    then = read_certificate(file)
    with progress("loading", 1.0) as bar:
        from paceline.certify.run import verify

        return verify(then, lambda what, share: bar.update(share, what))


def _summarise(found: dict[str, Any], place: Path) -> None:
    from paceline.certify.page import claim

    console = Console(highlight=False)
    colour = {"PASS": "green", "FAIL": "red", "VOID": "yellow"}[found["verdict"]]
    console.print(f"[bold {colour}]{found['verdict']}[/]  {found['model']['name']}", soft_wrap=True)
    lines = [claim(found)]
    first = found["bytes"]["divergence"]
    if first is not None:
        lines.append(f"first divergence ({first['cause']}): {first['label']}: token {first['index']}")
    if found["law"]["audit"]["first_wrong"]:
        lines.append(f"first wrong token: {found['law']['audit']['first_wrong']}")
    lines.append(f"{found['seconds']['total']:.0f} s · {place} · {place.with_suffix('.json')}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
