"""`benchmarks/peers/in_vllm`: vLLM's server plain, with its own drafters and with Paceline's, under the same loops."""

from __future__ import annotations

import asyncio
import json as to_json
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
import typer
from goal import Goal, print_goals

from paceline.bench.serve.prompts import ServePrompt, repeated
from paceline.bench.serve.sweep import Sweep, SweepPlan
from paceline.bench.shapes import parse_counts
from paceline.bench.timing import ratio
from paceline.console import progress, write_json
from paceline.errors import PacelineError
from paceline.provenance import provenance
from peers.prompts import prompts_of
from peers.servers import SERVERS, PeerServer, Site, vllm_server
from peers.serving import compete, show_results, site_of, start

PLAIN, NGRAM, SUFFIX, OURS = "vllm plain", "vllm ngram", "vllm suffix", "paceline in vllm"
REMEMBERING = "paceline in vllm, one tenant"  # its `history` knows all earlier turns, as vLLM's suffix does
_SPECULATION: dict[str, dict[str, Any]] = {
    NGRAM: {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2},
    SUFFIX: {"method": "suffix"},
    OURS: {"method": "custom_class", "model": "paceline.vllm.Drafter", "num_speculative_tokens": 16},
}
_OWN_ARGUMENTS = {OURS: ("--middleware", "paceline.vllm.middleware.Middleware")}  # each cell is a tenant of its own
MIX = ("copy", "edit", "command", "session")
_REPEATS, _ROOM = 3, 32
# vLLM allows temperatures up to 2: as near to noise as it comes.
_OPEN = {"story": {}, "story-1": {"temperature": 1.0}, "noise": {"temperature": 2.0}}
_AHEAD, _LEAST = 1.2, 0.97


def in_vllm(site: Site) -> list[PeerServer]:
    """A server for each way to draft."""
    found = [vllm_server(site, PLAIN)]
    for name, speculation in _SPECULATION.items():
        arguments = ("--speculative-config", to_json.dumps(speculation), *_OWN_ARGUMENTS.get(name, ()))
        found.append(vllm_server(site, name, *arguments))
    contenders = {**found[-1].contenders, REMEMBERING: {"cache_salt": "one tenant"}}
    return [*found[:-1], replace(found[-1], contenders=contenders)]


def mixed(folder: Path, per_task: int, max_tokens: int) -> list[ServePrompt]:
    """Copies, edits, commands, sessions that quote themselves; and stories, each of which is asked for three times."""
    quoting = [prompts_of(folder, [task], per_task, max_tokens + _ROOM) for task in MIX]
    repeated = prompts_of(folder, ["story"], per_task, max_tokens + _ROOM) * _REPEATS
    turns = chain.from_iterable(zip_longest(*quoting, repeated))
    again = {id(prompt) for prompt in repeated}
    return [
        ServePrompt("repeat" if id(one) in again else one.task, one.ids, max_tokens, {"ignore_eos": True})
        for one in turns
        if one is not None
    ]


def unforeseen(folder: Path, per_task: int, max_tokens: int) -> dict[str, list[ServePrompt]]:
    """Stories, greedy and drawn, and noise."""
    stories = prompts_of(folder, ["story"], per_task, max_tokens + _ROOM)
    fields = {"ignore_eos": True}
    return {
        name: [
            ServePrompt(name, one.ids, max_tokens, {**fields, **how, "seed": i}) for i, one in enumerate(stories * 2)
        ]
        for name, how in _OPEN.items()
    }


def verdicts(mix: Sweep, rest: dict[str, Sweep]) -> list[Goal]:
    """The lines to reach."""
    lines = []
    for clients in mix.plan.clients:
        for ours, name in ((OURS, NGRAM), (REMEMBERING, SUFFIX)):
            if name in mix.names:
                found = ratio(mix.rates(ours, clients), mix.rates(name, clients))
                text = f"the mix with {clients} client(s): {ours} at least {_AHEAD} x {name}"
                lines.append(Goal(text, str(found), found.value >= _AHEAD))
    for (task, sweep), name in ((one, name) for one in rest.items() for name in (OURS, NGRAM)):
        for clients in sweep.plan.clients:
            found = sweep.over_first(name, clients)
            text = f"{task} with {clients} client(s): {name} at least {_LEAST} x plain"
            lines.append(Goal(text, str(found), found.value >= _LEAST))
    return lines


def main(
    target: str = typer.Option("inflated", help="bundled, inflated (to 134 M), or a folder."),
    dtype: str = typer.Option("bfloat16", help="bfloat16 or float32."),
    prompts: int = typer.Option(3, min=1, help="Prompts of each task, as the same tokens for everybody."),
    max_tokens: int = typer.Option(48, min=1, help="Tokens of every output."),
    clients: str = typer.Option("1,4,16", help="Numbers of clients."),
    repeats: int = typer.Option(3, min=1, help="Rounds; medians count."),
    threads: int = typer.Option(2, min=1, help="Threads of every server."),
    json: Path = typer.Option(None, help="Write all figures to this file."),
) -> None:
    """Put the same load on vLLM with each way to draft, in turns."""
    plan = SweepPlan(parse_counts("clients", clients), repeats, num_warmups=8)
    SERVERS["in vllm"] = in_vllm
    with progress("preparing"):
        site = site_of(target, dtype, threads, plan.clients[-1], (1024, max_tokens + _ROOM))
        folder = Path(site.target.folder)
        loads = {"mix": mixed(folder, prompts, max_tokens), **unforeseen(folder, prompts, max_tokens)}
        # Fewer requests than clients would leave some of these idle, and more so where answers come sooner.
        loads = {name: repeated(load, max(len(load), 2 * plan.clients[-1])) for name, load in loads.items()}
    with ExitStack() as stack:
        ready, absent = start(["in vllm"], site, stack)
        sweeps = {name: asyncio.run(compete(ready, load, plan)) for name, load in loads.items()}
    for name, sweep in sweeps.items():
        show_results(sweep, absent, f"{name}: {target}, {dtype}")
    lines = verdicts(sweeps["mix"], {name: sweep for name, sweep in sweeps.items() if name != "mix"})
    print_goals(lines)
    origin = provenance(torch.device("cpu")) | {"command": shlex.join(["benchmarks/peers/in_vllm", *sys.argv[1:]])}
    about: dict[str, Any] = {"kind": "drafting-in-vllm", "provenance": origin, "target": target, "dtype": dtype}
    cells = {"cells": {name: sweep.cells() for name, sweep in sweeps.items()}, "absent": absent}
    write_json(json, about | cells | {"goals": [line.as_dict() for line in lines]})


if __name__ == "__main__":
    try:
        typer.run(main)
    except PacelineError as error:
        raise SystemExit(f"benchmarks/peers/in_vllm: {error}") from error
