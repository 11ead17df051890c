"""`benchmarks/peers/serve`: servers of Paceline and its peers under the same closed loops, in turns, in one table."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
import typer
from goal import Goal, print_goals

from paceline.bench.serve.client import BACKENDS, OPENAI, Service, connected
from paceline.bench.serve.process import leaving_on_sigterm, running
from paceline.bench.serve.prompts import ServePrompt
from paceline.bench.serve.sweep import Sweep, SweepPlan, Variant, run_sweep, sweep_table
from paceline.bench.shapes import parse_counts
from paceline.cache import cache_folder
from paceline.console import progress, show, write_json
from paceline.errors import PacelineError
from paceline.provenance import provenance
from peers.install import CannotInstallError
from peers.process import PeerError
from peers.prompts import prompts_of
from peers.protocol import Target
from peers.servers import SERVERS, PeerServer, Site
from peers.targets import checkpoint, draft_checkpoint

OURS = "paceline"
_AT_ONCE = 2  # servers that start
_DRAFT_ROOM = 32  # positions beyond the output, for drafts that reach past it
_BENCHMARKS = Path(__file__).parents[1]
_FOLDERS = (_BENCHMARKS, _BENCHMARKS.parent / "src")


def start(names: Sequence[str], site: Site, stack: ExitStack) -> tuple[dict[str, PeerServer], dict[str, str]]:
    """Servers that run, by base URL, and for the others why not. Two start at once, each mostly by one thread."""
    absent: dict[str, str] = {}
    servers: list[PeerServer] = []
    for name in names:
        try:
            with progress(f"{name}: installing, if missing"):
                servers += SERVERS[name](site)
        except (CannotInstallError, PeerError) as error:
            absent[name] = str(error)
    stack.enter_context(leaving_on_sigterm())
    with progress("starting"), ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(partial(_started, stack), servers))
    pairs = list(zip(servers, found, strict=True))
    absent |= {", ".join(one.contenders): str(why) for one, why in pairs if isinstance(why, Exception)}
    return {url: server for server, url in pairs if isinstance(url, str)}, absent


def _started(stack: ExitStack, server: PeerServer) -> str | Exception:
    """A server's base URL, or why there is none."""
    try:
        return stack.enter_context(running(server.command, server.environment))
    except (PacelineError, OSError) as error:
        return error


async def compete(servers: Mapping[str, PeerServer], prompts: Sequence[ServePrompt], plan: SweepPlan) -> Sweep:
    """All contenders in turns at every number of clients; ours come first, and others are compared with the first."""
    async with AsyncExitStack() as stack:
        variants = []
        for base_url, server in servers.items():
            client = await stack.enter_async_context(connected(base_url))
            service = Service(base_url, OPENAI, BACKENDS[OPENAI], await client.first_model())
            variants += [Variant(name, client, service, fields) for name, fields in server.contenders.items()]
        total = len(variants) * (plan.num_warmups + plan.repeats * len(plan.clients) * len(prompts))
        with progress("requests", total) as advance:
            return await run_sweep(variants, prompts, plan, advance)


def verdicts(sweep: Sweep) -> list[Goal]:
    """Ahead of every peer with the fewest clients, at least level with the most."""
    fewest, most = sweep.plan.clients[0], sweep.plan.clients[-1]
    peers = [name for name in sweep.names if not name.startswith(OURS)]
    lines = []
    for clients, words in ((fewest, "ahead of"), (most, "at least level with")):
        for name in peers:
            over = sweep.over_first(name, clients)
            text = f"with {clients} client(s) {words} {name}"
            is_reached = over.value < 1.0 if clients == fewest else over.value <= 1.0
            lines.append(Goal(text, f"it has {over} x our tokens/s", is_reached))
    return lines


def site_of(name: str, dtype: str, threads: int, clients: int, lengths: tuple[int, int]) -> Site:
    """A target's checkpoint in the cache, and where servers are installed."""
    cache = cache_folder() / "peers"
    folder = checkpoint(name, dtype, cache / "models")
    draft = draft_checkpoint(name, dtype, cache / "models")
    target = Target(str(folder), str(draft) if draft else None, dtype, threads, sum(lengths), exports="")
    return Site(target, clients, cache, _FOLDERS)


def main(
    target: str = typer.Option("inflated", help="bundled, inflated (to 134 M), or a folder."),
    dtype: str = typer.Option("bfloat16", help="bfloat16 or float32."),
    peers: str = typer.Option(",".join(SERVERS), help="Whose servers; ours come first."),
    tasks: str = typer.Option("story,copy,edit,command,maths,session", help="Kinds of text."),
    prompts: int = typer.Option(4, min=1, help="Prompts of each task, as the same tokens for everybody."),
    max_tokens: int = typer.Option(48, min=1, help="Tokens of every output."),
    clients: str = typer.Option("1,4,16", help="Numbers of clients."),
    repeats: int = typer.Option(3, min=1, help="Rounds; medians count."),
    threads: int = typer.Option(2, min=1, help="Threads of every server."),
    json: Path = typer.Option(None, help="Write all figures to this file."),
) -> None:
    """Put the same load on Paceline's server and its peers', with the same weights, in turns."""
    plan = SweepPlan(parse_counts("clients", clients), repeats, num_warmups=8)
    with progress("preparing"):
        site = site_of(target, dtype, threads, plan.clients[-1], (1024, max_tokens + _DRAFT_ROOM))
        room = max_tokens + _DRAFT_ROOM
        asked = [
            ServePrompt(prompt.task, prompt.ids, max_tokens, {"ignore_eos": True})
            for prompt in prompts_of(Path(site.target.folder), tasks.split(","), prompts, room)
            if len(prompt.ids) + room <= site.target.max_length
        ]
    with ExitStack() as stack:
        ready, absent = start(peers.split(","), site, stack)
        sweep = asyncio.run(compete(ready, asked, plan))
    show_results(sweep, absent, f"{target}, {dtype}")
    lines = verdicts(sweep)
    print_goals(lines)
    origin = provenance(torch.device("cpu")) | {"command": shlex.join(["benchmarks/peers/serve", *sys.argv[1:]])}
    about: dict[str, Any] = {"kind": "serve-peers", "provenance": origin, "target": target, "dtype": dtype}
    cells = {"cells": sweep.cells(), "absent": absent, "goals": [line.as_dict() for line in lines]}
    write_json(json, about | cells)


def show_results(sweep: Sweep, absent: Mapping[str, str], title: str) -> None:
    """The table; who is absent is a row that says why."""
    table = sweep_table(title, sweep)
    table.rows += [(name, why, *[""] * (len(table.columns) - 2)) for name, why in absent.items()]
    show(table)


if __name__ == "__main__":
    try:
        typer.run(main)
    except PacelineError as error:
        raise SystemExit(f"benchmarks/peers/serve: {error}") from error
