"""`benchmarks/peers/in_vllm`: vLLM's server plain, with its own drafters and with Paceline's, under the same loops."""

from __future__ import annotations

import asyncio
import json as to_json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
import typer
from goal import Goal, print_goals
from transformers import AutoTokenizer

from paceline.bench.serve.client import BACKENDS, OPENAI, Service, connected
from paceline.bench.serve.prompts import ServePrompt, repeated
from paceline.bench.serve.sweep import Sweep, SweepPlan, Variant, run_sweep
from paceline.bench.shapes import parse_counts
from paceline.bench.tasks import read_tasks
from paceline.bench.timing import ratio
from paceline.bundled import PROMPTS
from paceline.console import progress, write_json
from paceline.errors import PacelineError
from paceline.jsonl import read_jsonl
from paceline.provenance import provenance
from paceline.text.tokenizer import Tokenizer
from peers.prompts import prompts_of
from peers.servers import SERVERS, PeerServer, Site, vllm_server
from peers.serving import show_results, site_of, start
from peers.stopping import Turns, children, taking_turns

PLAIN, NGRAM, SUFFIX, OURS = "vllm plain", "vllm ngram", "vllm suffix", "paceline in vllm"
AGAIN = "vllm plain, again"  # how far two that are the same come apart
REMEMBERING = "paceline in vllm, one tenant"  # its `history` knows all earlier turns, as vLLM's suffix does
_SPECULATION: dict[str, dict[str, Any]] = {
    NGRAM: {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2},
    SUFFIX: {"method": "suffix"},
    OURS: {"method": "custom_class", "model": "paceline.vllm.Drafter", "num_speculative_tokens": 16},
}
_OWN_ARGUMENTS = {OURS: ("--middleware", "paceline.vllm.middleware.Middleware")}  # each cell is a tenant of its own
MIX = ("copy", "edit", "command", "session")
MIXED = (PLAIN, NGRAM, SUFFIX, OURS, REMEMBERING)  # who gets the mix; the first is what others are compared with
OPEN = (PLAIN, AGAIN, NGRAM, OURS)  # and who gets the rest
_REPEATS, _ROOM = 3, 32
_TO_EACH = 2  # requests for each client, at least
_NUM_WARMUPS = 4
_REST = 0.3  # seconds in which a server that runs again closes connections that it takes for forgotten
# vLLM allows temperatures up to 2: as near to noise as it comes.
_OPEN = {"story": {}, "story-1": {"temperature": 1.0}, "noise": {"temperature": 2.0}}
_AHEAD, _LEAST = 1.2, 0.97


def in_vllm(site: Site) -> list[PeerServer]:
    """A server for each way to draft."""
    plain = vllm_server(site, PLAIN)
    found = [replace(plain, contenders={PLAIN: {}, AGAIN: {}})]
    for name, speculation in _SPECULATION.items():
        arguments = ("--speculative-config", to_json.dumps(speculation), *_OWN_ARGUMENTS.get(name, ()))
        found.append(vllm_server(site, name, *arguments))
    contenders = {**found[-1].contenders, REMEMBERING: {"cache_salt": "one tenant"}}
    return [*found[:-1], replace(found[-1], contenders=contenders)]


def mixed(folder: Path, per_task: int, max_tokens: int) -> list[ServePrompt]:
    """Copies, edits, commands, sessions that quote themselves; and stories, each of which is asked for three times."""
    quoting = [prompts_of(folder, [task], per_task, max_tokens + _ROOM) for task in MIX]
    again = prompts_of(folder, ["story"], per_task, max_tokens + _ROOM) * _REPEATS
    turns = chain.from_iterable(zip_longest(*quoting, again))
    known = {id(prompt) for prompt in again}
    return [
        ServePrompt("repeat" if id(one) in known else one.task, one.ids, max_tokens, {"ignore_eos": True})
        for one in turns
        if one is not None
    ]


def beginnings(count: int) -> list[str]:
    """So many beginnings of texts, each once: the bundled ones, then their first halves. Repeats could be foreseen."""
    texts = [task.prompt for task in read_tasks(None) if task.task == "story"]
    texts += read_jsonl(PROMPTS, lambda line: str(line["prompt"]), "prompts", 'a file of lines {"prompt": "..."}')
    halves = [" ".join(words[: len(words) // 2]) for words in map(str.split, texts)]
    return list(dict.fromkeys([*texts, *halves]))[:count]


def unforeseen(folder: Path, count: int, max_tokens: int) -> dict[str, list[ServePrompt]]:
    """Stories, greedy and drawn, and noise: so many requests of each."""
    tokenizer = Tokenizer(AutoTokenizer.from_pretrained(folder))
    prompts = [tuple(tokenizer.encode(text)) for text in beginnings(count)]
    fields = {"ignore_eos": True}
    return {
        name: [ServePrompt(name, ids, max_tokens, {**fields, **how, "seed": i}) for i, ids in enumerate(prompts)]
        for name, how in _OPEN.items()
    }


@dataclass(frozen=True)
class Load:
    """What is asked, of whom, with how many clients, and how many requests at least."""

    prompts: Sequence[ServePrompt]
    names: tuple[str, ...]
    clients: tuple[int, ...]
    fewest: int

    def asked(self, clients: int) -> Sequence[ServePrompt]:
        """The prompts for so many clients: some for each of them, since rates say little where clients are idle."""
        return repeated(self.prompts, max(self.fewest, _TO_EACH * clients))


async def compete(
    servers: Mapping[str, PeerServer], turns: Turns, loads: Mapping[str, Load], plan: SweepPlan
) -> dict[str, Sweep]:
    """Every load at its numbers of clients, contenders in turns, one server running at a time."""
    async with AsyncExitStack() as stack:
        variants: dict[str, Variant] = {}
        for base_url, server in servers.items():
            turns.give(base_url)
            client = await stack.enter_async_context(connected(base_url))
            service = Service(base_url, OPENAI, BACKENDS[OPENAI], await client.first_model())
            for name, fields in server.contenders.items():
                variants[name] = Variant(name, client, service, fields, partial(turns.give, base_url))
        found = {}
        for name, load in loads.items():
            ready = [variants[one] for one in load.names if one in variants]
            found[name] = await _swept(ready, load, plan)
            plan = replace(plan, num_warmups=1)  # all have been at work by now
        return found


async def _swept(variants: Sequence[Variant], load: Load, plan: SweepPlan) -> Sweep:
    whole = Sweep(replace(plan, clients=load.clients), tuple(one.name for one in variants), len(load.prompts))
    for clients in load.clients:
        prompts = load.asked(clients)
        total = len(variants) * (plan.num_warmups + plan.repeats * len(prompts))
        with progress(f"{load.prompts[0].label}, {clients} client(s)", total) as advance:
            sweep = await run_sweep(variants, prompts, replace(plan, clients=(clients,)), advance)
        whole.rounds |= sweep.rounds
    return whole


def processes(base_urls: Sequence[str]) -> dict[str, int]:
    """The process of each server that this one has started, by the port in its command."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in children(os.getpid())}
    return {url: next(pid for pid, words in commands.items() if url.rpartition(":")[2] in words) for url in base_urls}


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
    prompts: int = typer.Option(2, min=1, help="Prompts of each task of the mix, as the same tokens for everybody."),
    requests: int = typer.Option(4, min=1, help="Requests of each other load, at least; two for each client."),
    max_tokens: int = typer.Option(32, min=1, help="Tokens of every output."),
    clients: str = typer.Option("1,4,16", help="Numbers of clients."),
    mix_clients: str = typer.Option("1,4", help="Numbers of clients that get the mix."),
    repeats: int = typer.Option(3, min=1, help="Rounds; medians count."),
    threads: int = typer.Option(1, min=1, help="Threads of every model; vLLM's other processes take a core besides."),
    json: Path = typer.Option(None, help="Write all figures to this file."),
) -> None:
    """Put the same load on vLLM with each way to draft, in turns."""
    few, many = parse_counts("mix-clients", mix_clients), parse_counts("clients", clients)
    most = max(*few, *many)
    SERVERS["in vllm"] = in_vllm
    with progress("preparing"):
        site = site_of(target, dtype, threads, most, (1024, max_tokens + _ROOM))
        folder = Path(site.target.folder)
        mix = mixed(folder, prompts, max_tokens)
        loads = {"mix": Load(mix, MIXED, few, len(mix))}
        for name, asked in unforeseen(folder, max(requests, _TO_EACH * most), max_tokens).items():
            loads[name] = Load(asked, OPEN, many, requests)
    plan = SweepPlan(many, repeats, _NUM_WARMUPS, rest=_REST)
    with ExitStack() as stack:
        ready, absent = start(["in vllm"], site, stack)
        turns = stack.enter_context(taking_turns(processes(list(ready))))
        sweeps = asyncio.run(compete(ready, turns, loads, plan))
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
