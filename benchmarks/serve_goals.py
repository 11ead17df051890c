"""Our goals of serving: what `paceline bench serve --sweep 1,4,16 --json FILE` is to reach."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from goal import Content, Goal, interval

PLAIN_SERVED, SPECULATIVE = "plain", "speculative"
MANY = 16  # clients
TARGET = ("inflated", "bfloat16")  # the target of the lines, and its dtype


def serve_goals(content: Content) -> list[Goal]:
    """The lines of the inflated target in bfloat16, as far as their numbers of clients were measured."""
    if (content["model"], content["dtype"]) != TARGET:
        return []
    cells = {(cell["variant"], cell["clients"]): cell for cell in content["cells"]}
    lines = [_at_one_client(cells[SPECULATIVE, 1]), _at_any_load(cells)] if (PLAIN_SERVED, 1) in cells else []
    if {(PLAIN_SERVED, 1), (PLAIN_SERVED, MANY)} <= cells.keys():
        lines.append(_batching(cells[PLAIN_SERVED, MANY]))
    lines.append(_steady(cells))
    if (SPECULATIVE, MANY) in cells:
        lines.append(_outside_engine(cells))
    return [*lines, _whole(cells)]


def _batching(cell: Content) -> Goal:
    over = cell["over_fewest_clients"]
    text = f"plain decoding at {MANY} clients has at least 3 x the throughput at 1"
    return Goal(text, f"{interval(over)} x", over["value"] >= 3.0)


def _at_one_client(cell: Content) -> Goal:
    over = cell["over_first_variant"]
    return Goal("speculation is at least 1.5 x plain at 1 client", f"{interval(over)} x", over["value"] >= 1.5)


def _at_any_load(cells: Mapping[tuple[str, int], Content]) -> Goal:
    over = {clients: cell["over_first_variant"] for (name, clients), cell in cells.items() if name == SPECULATIVE}
    worst = min(over, key=lambda clients: float(over[clients]["value"]))
    figure = f"{interval(over[worst])} x at worst, at {worst} clients"
    return Goal("speculation is at least 1.0 x plain at every load", figure, over[worst]["value"] >= 1.0)


def _steady(cells: Mapping[tuple[str, int], Content]) -> Goal:
    ratios = {
        key: _middle(cell, "p99_token_gap_ms") / _middle(cell, "median_token_gap_ms") for key, cell in cells.items()
    }
    worst = max(ratios, key=lambda key: ratios[key])
    figure = f"{ratios[worst]:.2f} x at worst, {worst[0]} at {worst[1]} clients"
    return Goal("the p99 gap between tokens is at most 3 x the median", figure, ratios[worst] <= 3.0)


def _outside_engine(cells: Mapping[tuple[str, int], Content]) -> Goal:
    text = f"HTTP and scheduling take at most 10 % of the time at {MANY} clients"
    of_all = [cells[name, MANY] for name in (PLAIN_SERVED, SPECULATIVE) if (name, MANY) in cells]
    if any(round["outside_engine_share"] is None for cell in of_all for round in cell["rounds"]):
        return Goal(text, "the server does not count its time in engine steps", False)
    shares = {cell["variant"]: _middle(cell, "outside_engine_share") for cell in of_all}
    figure = ", ".join(f"{share:.1%} {name}" for name, share in shares.items())
    return Goal(text, figure, max(shares.values()) <= 0.1)


def _whole(cells: Mapping[tuple[str, int], Content]) -> Goal:
    counts = [round["outcomes"] for cell in cells.values() for round in cell["rounds"]]
    total, whole = sum(sum(count.values()) for count in counts), sum(count["ok"] for count in counts)
    return Goal("every request is answered whole", f"{whole} of {total}", whole == total)


def _middle(cell: Content, key: str) -> float:
    """The median of a figure over rounds."""
    return float(median(found[key] for found in cell["rounds"]))
