"""What forwards and drafters take on this machine: looked at before the first request, learnt from those that follow.

What was learnt of forwards is kept in the user's cache folder, for the next process. All times are seconds.
"""

from __future__ import annotations

import math
import os
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from paceline._version import __version__
from paceline.cache import cache_file, read_json, write_json
from paceline.engine.ports import Target
from paceline.engine.request import WARM_UP, Drafter, DraftLimits, Hints, Request
from paceline.engine.tree import MAX_DEPTH
from paceline.pacing.costs import CostTable, ForwardCost
from paceline.pacing.estimates import DrafterStatistics
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.text.stream import TextStream

_NEAR, _FAR = 32, 992  # positions before the rows; costs are taken to be linear in them
_SECONDS = 1.5  # for measuring; what is left unmeasured then is interpolated
_ROUNDS = 3

_STALE_SECONDS = 30 * 86400
_LOOK = 8  # rows of the second forward that is looked at where nothing is known
ROW = 0.05  # of a forward of one row, that each further row is taken to cost where nothing says better

_WORDS = 16  # different tokens of the text, so that it repeats itself
_SHORT_PROMPT, _LONG_PROMPT = 24, 256  # tokens
_DEPTHS = (1, 1, 4, 1, 4, 1, 4)  # of proposals for one request; the first reads its prompt
_SHORT_FORWARD = 0.02  # seconds

Clock = Callable[[], float]


def cost_table(target: Target, name: str) -> CostTable:
    """What a target's forwards cost, as far as an earlier process learnt it or one look at two forwards says.

    The rest are guesses, which the first requests' own steps correct; what is learnt is kept for the next process.
    """
    file = cache_file("costs", _identity(target, name))
    kept = kept_costs(file)
    known = {count: kept[count] for count in target.row_counts if count in kept}
    keep = partial(keep_costs, file)
    if target.row_counts[0] in known:
        return CostTable(completed(known, target.row_counts), known=known, keep=keep)
    looked_at = _looked_at(target)
    keep(looked_at)
    return CostTable(completed(looked_at, target.row_counts), known=(), keep=keep)


def _looked_at(target: Target) -> dict[int, ForwardCost]:
    """One forward of the fewest rows and one of some, each run once; what a cached position adds is its bytes' time.

    A forward reads every weight once: that says how many bytes there are to a second.
    """
    counts = target.row_counts
    few, some = counts[0], next((count for count in counts if count >= _LOOK), counts[-1])
    memory = target.memory()
    position = memory["pool_bytes"] / max(target.capacity, 1) / max(memory["weight_bytes"], 1)
    found: dict[int, ForwardCost] = {}
    for count in sorted({few, some}):
        started = time.perf_counter()
        fits = target.dry_run(count, 0)
        seconds = time.perf_counter() - started
        if fits or count == few:
            found[count] = ForwardCost(seconds, position * found.get(few, ForwardCost(seconds, 0.0)).base)
    return found


def completed(known: Mapping[int, ForwardCost], counts: Sequence[int]) -> dict[int, ForwardCost]:
    """Costs of all row counts: a line through the two known ones around, or a curve beyond them."""
    return {count: known.get(count) or _guess(known, count) for count in counts}


def _guess(known: Mapping[int, ForwardCost], count: int) -> ForwardCost:
    fewer = max(other for other in known if other < count)
    below = known[fewer]
    above = min((other for other in known if other > count), default=None)
    if above is not None:
        share = (count - fewer) / (above - fewer)
        return ForwardCost(
            below.base + share * (known[above].base - below.base),
            below.slope + share * (known[above].slope - below.slope),
        )
    first = known[min(known)]
    row = max((below.base - first.base) / (fewer - min(known)), 0.0) if fewer > min(known) else ROW * first.base
    # Somewhere behind what is known arithmetic takes over from memory: dearer than the line, less than in proportion.
    turned = below.base * math.sqrt(count / fewer) if fewer > min(known) else 0.0
    return ForwardCost(max(below.base + (count - fewer) * row, turned), below.slope)


def experience_file(target: Target, name: str) -> Path:
    """Where what pacing learns of a target's drafters is kept."""
    return cache_file("pacing", _identity(target, name))


def measure(target: Target, clock: Clock = time.perf_counter) -> dict[int, ForwardCost]:
    """Time forwards at the target's row counts and two context lengths, within about two seconds.

    Behind a short context first, powers of two first, then behind a long one: what is left when time is up, or has no
    room, costs as much as the next larger that was measured, or in proportion to the largest. A count is run once
    untimed, for what is prepared at first use.
    """
    deadline = clock() + _SECONDS
    counts = sorted(target.row_counts, key=lambda count: (count & (count - 1) != 0, count))  # powers of two first
    near = _times(target, counts[:1], _NEAR, clock) or _times(target, counts[:1], 0, clock)
    near |= _times(target, counts[1:], _NEAR, clock, deadline)
    far = _times(target, [count for count in counts if count in near], _FAR, clock, deadline)
    slopes = {count: max(seconds - near[count], 0.0) / (_FAR - _NEAR) for count, seconds in far.items()}
    return {count: _line(count, near, slopes) for count in target.row_counts}


def quickest(target: Target, count: int, context: int, rounds: int, clock: Clock = time.perf_counter) -> float | None:
    """Seconds of the quickest of some forwards after an untimed one; None if they do not fit.

    What noise adds is learnt while decoding.
    """
    if not target.dry_run(count, context):
        return None
    samples = []
    for _ in range(rounds):
        started = clock()
        target.dry_run(count, context)
        samples.append(clock() - started)
    return min(samples)


def _times(
    target: Target, counts: Sequence[int], context: int, clock: Clock, deadline: float = float("inf")
) -> dict[int, float]:
    """Seconds of forwards behind a context, of the row counts that fit and come up before the deadline."""
    times: dict[int, float] = {}
    for count in counts:
        seconds = quickest(target, count, context, _ROUNDS, clock) if clock() < deadline else None
        if seconds is not None:
            times[count] = seconds
    return times


def _line(count: int, near: dict[int, float], slopes: dict[int, float]) -> ForwardCost:
    slope = _known(count, slopes) if slopes else 0.0
    return ForwardCost(max(_known(count, near) - slope * _NEAR, 0.0), slope)


def _known(count: int, measured: dict[int, float]) -> float:
    """What was measured for a count, or for the next larger; beyond the largest, in proportion to it."""
    counts = sorted(measured)
    nearest = counts[min(bisect_left(counts, count), len(counts) - 1)]
    return measured[nearest] * max(1.0, count / nearest)


def _identity(target: Target, name: str) -> dict[str, Any]:
    """What costs depend on."""
    host = os.uname().nodename if hasattr(os, "uname") else ""
    weights = target.memory()["weight_bytes"]
    return {"name": name, "release": __version__, "host": host, "numerics": target.numerics(), "weights": weights}


def kept_costs(path: Path) -> dict[int, ForwardCost]:
    """What is kept of a target's costs; nothing if it makes no sense."""
    says = read_json(path, _STALE_SECONDS)
    try:
        costs = {int(rows): ForwardCost(*map(float, cost)) for rows, cost in says.items()} if says else {}
    except (ValueError, TypeError, AttributeError):
        return {}
    is_sound = all(0.0 < cost.at(_NEAR) < math.inf and 0.0 <= cost.slope < math.inf for cost in costs.values())
    return costs if is_sound else {}


def keep_costs(path: Path, costs: Mapping[int, ForwardCost]) -> None:
    """Keep a target's costs for the next process."""
    write_json(path, {rows: [cost.base, cost.slope] for rows, cost in costs.items()})


def time_drafter(drafter: Drafter, target: Target, plain: float, statistics: DrafterStatistics, clock: Clock) -> None:
    """Let `statistics` learn from a few proposals for made-up requests, which the drafter forgets again.

    Each comes after a forward, as they do in decoding; `plain` is what one takes, in seconds. A drafter that has
    nothing to say about them, or fails, stays as it was estimated: it will be judged at its work.
    """
    with suppress(Exception):
        # The first proposal of all is not counted, for what is prepared at first use: so it is a long one.
        for length, num_proposals in ((_LONG_PROMPT, 1), (_SHORT_PROMPT, len(_DEPTHS)), (_LONG_PROMPT, 1)):
            request = _made_up(length, target.vocab_size)
            _propose(drafter, request, num_proposals, statistics, clock, partial(evict_caches, target, plain))


def evict_caches(target: Target, seconds: float) -> None:
    """Leave the processor's caches as forwards do, full of weights: what is wanted next is read from memory.

    A forward is run for that effect if it takes few `seconds`; beside a long one it would not count.
    """
    if seconds < _SHORT_FORWARD:
        target.dry_run(1, 0)


def _made_up(num_tokens: int, vocab_size: int) -> Request:
    tokens = random.Random(0).choices(range(min(_WORDS, vocab_size)), k=num_tokens)
    sampler = Sampler(SamplingParams(max_tokens=len(_DEPTHS) + MAX_DEPTH), SamplerContext(vocab_size), tokens, 0)
    return Request(tokens, sampler, TextStream(lambda ids: "", tokens, ()), frozenset(), hints=Hints(tenant=WARM_UP))


def _propose(
    drafter: Drafter,
    request: Request,
    num_proposals: int,
    statistics: DrafterStatistics,
    clock: Clock,
    prepare: Callable[[], None],
) -> None:
    try:
        unread = len(request.tokens)
        for depth in _DEPTHS[: num_proposals if drafter.start(request) else 0]:
            prepare()
            started = clock()
            [tree] = drafter.propose([request], [DraftLimits(MAX_DEPTH // 4, depth)])
            statistics.learn_cost(unread, max(tree.depths, default=0), clock() - started)
            request.tokens.append(request.tokens[0])
            unread = 1
    finally:
        del request.tokens[request.num_prompt_tokens :]  # who remembers outputs finds none
        drafter.finish(request)
