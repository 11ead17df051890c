"""A closed loop at several numbers of clients, variants of the same requests in turns, round after round.

In every cell each prompt is asked once, under a `cache_salt` of that cell and the prompt's task: neither the prefix
cache nor a drafter that remembers texts knows its answer. (Tasks share prompts: a story at several temperatures.)
Servers without the field ignore it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import median
from typing import Any

from paceline.bench.serve.client import Client, Service
from paceline.bench.serve.figures import figures
from paceline.bench.serve.load import Load, LoadPlan, run_load
from paceline.bench.serve.prompts import ServePrompt
from paceline.bench.serve.wanted import FigureOptions
from paceline.bench.timing import Ratio, ratio
from paceline.console import Table

PLAIN, SPECULATIVE = "plain", "speculative"
RATE, WHOLE_RATE = "saturated_output_throughput", "output_throughput"


def _nothing() -> None:
    """Nobody watches, and nothing is to be prepared."""


@dataclass(frozen=True)
class Variant:
    """One way to be asked: by whom, where, with which fields, and what is to be done before its turn."""

    name: str
    client: Client
    service: Service
    fields: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], object] = _nothing


def plain_and_speculative(client: Client, service: Service) -> list[Variant]:
    """Paceline without drafts and as it is."""
    return [
        Variant(PLAIN, client, service, {"speculation": {"drafters": "none"}}),
        Variant(SPECULATIVE, client, service),
    ]


@dataclass(frozen=True)
class SweepPlan:
    """Numbers of clients, ascending, and rounds."""

    clients: tuple[int, ...]
    repeats: int
    num_warmups: int  # requests of each variant before the first round
    options: FigureOptions = field(default_factory=FigureOptions)
    rest: float = 0.1  # seconds before a turn, in which threads of the one before fall asleep


@dataclass
class Sweep:
    """All figures: by variant and number of clients, one for each round."""

    plan: SweepPlan
    names: tuple[str, ...]
    num_prompts: int
    rounds: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)

    def values(self, name: str, clients: int, key: str) -> list[float]:
        """A figure in every round that has it."""
        return [found[key] for found in self.rounds[name, clients] if found.get(key) is not None]

    def rates(self, name: str, clients: int) -> list[float]:
        """Output tokens a second while all clients are busy; of the whole load where they never all are."""
        return [found[RATE] or found[WHOLE_RATE] for found in self.rounds[name, clients]]

    def over_one_client(self, name: str, clients: int) -> Ratio:
        """How many times the throughput of the fewest clients it is."""
        return ratio(self.rates(name, clients), self.rates(name, self.plan.clients[0]))

    def over_first(self, name: str, clients: int) -> Ratio:
        """How many times the throughput of the first variant, plain decoding, it is at as many clients."""
        return ratio(self.rates(name, clients), self.rates(self.names[0], clients))

    def cells(self) -> list[dict[str, Any]]:
        """Ready for JSON."""
        return [
            {
                "variant": name,
                "clients": clients,
                "over_fewest_clients": self.over_one_client(name, clients).as_dict(),
                "over_first_variant": self.over_first(name, clients).as_dict(),
                "rounds": self.rounds[name, clients],
            }
            for name, clients in product(self.names, self.plan.clients)
        ]


async def run_sweep(
    variants: Sequence[Variant],
    prompts: Sequence[ServePrompt],
    plan: SweepPlan,
    on_answer: Callable[[], object] = _nothing,
) -> Sweep:
    """Every variant at every number of clients, in turns; each turn begins with another variant."""
    sweep = Sweep(plan, tuple(variant.name for variant in variants), len(prompts))
    for variant in variants:
        variant.prepare()
        await _turn(variant, prompts[: plan.num_warmups], max(plan.clients), "warm-up", on_answer)
    for index, (repeat, clients) in enumerate(product(range(plan.repeats), plan.clients)):
        first = index % len(variants)
        for variant in (*variants[first:], *variants[:first]):
            variant.prepare()
            await asyncio.sleep(plan.rest)
            load = await _turn(variant, prompts, clients, f"round {repeat} of {clients}", on_answer)
            sweep.rounds.setdefault((variant.name, clients), []).append(figures(load, plan.options))
    return sweep


async def _turn(
    variant: Variant, prompts: Sequence[ServePrompt], clients: int, turn: str, on_answer: Callable[[], object]
) -> Load:
    asked = [
        replace(prompt, fields={**prompt.fields, "cache_salt": f"{variant.name}, {turn}, {prompt.label}"})
        for prompt in prompts
    ]
    plan = LoadPlan(max_concurrency=clients, fields=variant.fields)
    return await run_load(variant.client, variant.service, asked, plan, on_answer)


def sweep_table(title: str, sweep: Sweep) -> Table:
    """One line for each variant and number of clients: medians over rounds."""
    plan = sweep.plan
    first, fewest = sweep.names[0], plan.clients[0]
    columns = (
        "", "clients", "tokens/s", f"x {fewest} client(s)", f"x {first}", "TTFT p50", "p99", "token gap p50", "p99",
        "outside engine", "not whole",
    )  # fmt: skip
    table = Table(f"{title}: {sweep.num_prompts} requests, median of {plan.repeats}; milliseconds", columns)
    for name, clients in product(sweep.names, plan.clients):
        times = [f"{word}_{what}_ms" for what in ("ttft", "token_gap") for word in ("median", "p99")]
        ratios = str(sweep.over_one_client(name, clients)), str(sweep.over_first(name, clients))
        table.rows.append(
            (
                name,
                str(clients),
                f"{median(sweep.rates(name, clients)):.1f}",
                *ratios,
                *(_median(sweep.values(name, clients, key), "{:.1f}") for key in times),
                _median(sweep.values(name, clients, "outside_engine_share"), "{:.1%}"),
                str(sum(_not_whole(found) for found in sweep.rounds[name, clients])),
            )
        )
    table.notes += _notes(sweep)
    return table


def _notes(sweep: Sweep) -> list[str]:
    shares = [found["generator_cpu_share"] for cell in sweep.rounds.values() for found in cell]
    return [
        "Tokens/s while every client had a request on its way. In brackets the 95 % interval over rounds",
        "Token gap: a chunk of k tokens is k equal gaps. Outside engine: HTTP, scheduling and waiting, by the server's "
        "own clock",
        f"Load generator: at most {max(shares):.0%} of a core",
    ]


def _not_whole(found: Mapping[str, Any]) -> int:
    """Requests that were refused, failed or cut."""
    return sum(count for name, count in found["outcomes"].items() if name != "ok")


def _median(values: Sequence[float], form: str) -> str:
    return form.format(median(values)) if values else "-"
