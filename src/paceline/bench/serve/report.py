"""A load as tables, and in JSON under the keys of `vllm bench serve`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from paceline.bench.serve.answer import OUTCOMES
from paceline.bench.serve.client import Service
from paceline.bench.serve.load import LoadPlan
from paceline.bench.serve.wanted import FigureOptions
from paceline.console import Table

Figures = Mapping[str, Any]
_WORDS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl": "between chunks",
    "token_gap": "between tokens",
    "e2el": "end to end",
    "client_queue_time": "wait for a client",
}
_BUSY_SHARE = 0.5  # of a core: beyond it a read may wait for the one before
_LATE_MS = 10.0


def about(service: Service, plan: LoadPlan, num_prompts: int) -> dict[str, Any]:
    """What was run, by vLLM's keys."""
    return {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "backend": service.backend,
        "endpoint": service.endpoint,
        "model_id": service.model,
        "num_prompts": num_prompts,
        "request_rate": "inf" if math.isinf(plan.request_rate) else plan.request_rate,
        "burstiness": "inf" if math.isinf(plan.burstiness) else plan.burstiness,
        "max_concurrency": plan.max_concurrency,
        "seed": plan.seed,
        "extra_body": {**service.fields, **plan.fields},
    }


def file_name(service: Service, plan: LoadPlan, date: str) -> str:
    """The name that vLLM gives a result."""
    clients = f"-concurrency{plan.max_concurrency}" if plan.max_concurrency else ""
    return f"{service.backend}-{plan.request_rate}qps{clients}-{service.model.split('/')[-1]}-{date}.json"


def times_table(title: str, found: Figures, options: FigureOptions) -> Table:
    """One line for each kind of time, in milliseconds."""
    percentiles = [f"p{p:g}" for p in options.percentiles]
    table = Table(f"{title}: milliseconds", ("", "mean", "median", "std", *percentiles))
    for name in options.metrics:
        keys = [f"{word}_{name}_ms" for word in ("mean", "median", "std", *percentiles)]
        table.rows.append((_WORDS[name], *(_number(found[key]) for key in keys)))
    return table


def totals_table(title: str, found: Figures) -> Table:
    """Throughput, what became of the requests, and the generator's own share."""
    table = Table(title, ("", "figure"), list(_totals(found)))
    table.notes += [*_notes(found), *warnings(found)]
    return table


def _totals(found: Figures) -> list[tuple[str, str]]:
    ended = ", ".join(f"{found['outcomes'][name]} {name}" for name in OUTCOMES)
    rows = [
        ("requests", ended),
        ("seconds", f"{found['duration']:.2f}"),
        ("requests/s", f"{found['request_throughput']:.2f}"),
        ("output tokens/s", f"{found['output_throughput']:.1f}"),
        ("all tokens/s", f"{found['total_token_throughput']:.1f}"),
        ("most requests at once", str(found["max_concurrent_requests"])),
    ]
    if found["saturated_output_throughput"] is not None:
        rows.append(("output tokens/s, all clients busy", f"{found['saturated_output_throughput']:.1f}"))
    if found["outside_engine_share"] is not None:
        rows.append(("of that time outside engine steps", f"{found['outside_engine_share']:.1%}"))
    if found["request_goodput"] is not None:
        rows.append(("good requests/s", f"{found['request_goodput']:.2f}"))
    return rows + _speculation(found) + _deadline(found)


def _speculation(found: Figures) -> list[tuple[str, str]]:
    if "spec_decode_num_drafts" not in found:
        return []
    return [
        ("accepted of drafted tokens", f"{found['spec_decode_acceptance_rate']:.1f} %"),
        ("tokens a step with a draft", f"{found['spec_decode_acceptance_length']:.2f}"),
    ]


def _deadline(found: Figures) -> list[tuple[str, str]]:
    if "deadline_ms" not in found:
        return []
    kinds = {"hit": "whole in time", "cut": "cut in time", "late": "late", "refused": "refused", "lost": "lost"}
    shares = ", ".join(f"{found[f'deadline_{kind}_rate']:.1%} {words}" for kind, words in kinds.items())
    return [(f"deadline of {found['deadline_ms']:g} ms", shares)]


def _notes(found: Figures) -> list[str]:
    sources = ", ".join(f"{name} ({count})" for name, count in found["token_sources"].items())
    late = found["generator_p99_lateness_ms"]
    on_time = "" if late is None else f", 99 % of requests sent within {late:.1f} ms of their time"
    return [
        f"Tokens of a chunk from: {sources or 'nothing'}. A chunk of k tokens is k equal gaps between tokens",
        f"Load generator: {found['generator_cpu_share']:.0%} of a core{on_time}",
        *(f"{count} x {error}" for error, count in found["error_counts"].items()),
    ]


def warnings(found: Figures) -> list[str]:
    """What makes the figures those of the generator rather than of the server."""
    share, late = found["generator_cpu_share"], found["generator_p99_lateness_ms"] or 0.0
    lines = []
    if share > _BUSY_SHARE:
        lines.append(f"WARNING: the load generator took {share:.0%} of a core: it delays what it measures")
    if late > _LATE_MS:
        lines.append(f"WARNING: requests were sent up to {late:.0f} ms late (p99)")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
