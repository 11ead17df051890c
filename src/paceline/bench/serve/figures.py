"""A load in figures, by the names of `vllm bench serve`, with what that leaves out.

Requests that were refused, rejected or failed have no times but are counted, each kind apart. `failed` is vLLM's: all
of them together. What a deadline cut counts as `completed`, and is never good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paceline.bench.serve.answer import CUT, OK, OUTCOMES, REFUSED, Answer
from paceline.bench.serve.wanted import FigureOptions

if TYPE_CHECKING:
    from paceline.bench.serve.load import Load

Samples = dict[str, list[float]]


def figures(load: Load, options: FigureOptions) -> dict[str, Any]:
    """All figures, ready for JSON. Times without a sample are None."""
    answered = [answer for answer in load.answers if answer.is_answered]
    seconds = load.seconds
    num_input, num_output = (sum(map(count, answered)) for count in (_prompt_tokens, lambda a: a.num_tokens))
    good = None if options.goodput is None else sum(is_good(a, options.goodput) for a in answered) / seconds
    found: dict[str, Any] = {
        "duration": seconds,
        "completed": len(answered),
        "failed": len(load.answers) - len(answered),
        **outcomes(load.answers),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(answered) / seconds,
        "request_goodput": good,
        "output_throughput": num_output / seconds,
        "total_token_throughput": (num_input + num_output) / seconds,
        "max_concurrent_requests": most_at_once(load.answers),
        **_saturation(load),
        **_times(answered, options),
        **_deadlines(load.answers, options.deadline_ms),
        **(load.counted.speculation() if load.counted else {}),
        "num_preemptions": load.counted.num_preemptions if load.counted else None,
    }
    return found | _generator(load, answered)


def outcomes(answers: Sequence[Answer]) -> dict[str, Any]:
    """How many ended how, and the errors by how often they came."""
    counts = Counter(answer.outcome for answer in answers)
    errors = Counter(f"{answer.status or ''} {answer.error}".strip() for answer in answers if answer.error)
    return {"outcomes": {name: counts[name] for name in OUTCOMES}, "error_counts": dict(errors.most_common(10))}


def is_good(answer: Answer, goals: Mapping[str, float]) -> bool:
    """Whether an answer is whole and within every goal, in milliseconds; of one token there is no TPOT to miss."""
    values = ((getattr(answer, name) or 0.0, limit) for name, limit in goals.items())
    return answer.outcome == OK and all(1e3 * value <= limit for value, limit in values)


def most_at_once(answers: Sequence[Answer]) -> int:
    """The most requests on their way at any time; one that ends as another begins makes room for it."""
    changes = sorted([(a.sent, 1) for a in answers] + [(a.ended, -1) for a in answers])
    return int(max(np.cumsum([change for _, change in changes]), default=0))


def samples(answered: Sequence[Answer]) -> Samples:
    """Seconds of everything that is measured, by name."""

    def each(value: Callable[[Answer], float | None]) -> list[float]:
        return [found for answer in answered if (found := value(answer)) is not None]

    return {
        "ttft": each(lambda a: a.ttft),
        "tpot": each(lambda a: a.tpot),
        "itl": [gap for answer in answered for gap in answer.itls],
        "token_gap": [gap for answer in answered for gap in answer.token_gaps],
        "e2el": each(lambda a: a.e2el),
        "client_queue_time": each(lambda a: a.sent - a.due),
    }


def _times(answered: Sequence[Answer], options: FigureOptions) -> dict[str, float | None]:
    found = samples(answered)
    return {key: value for name in options.metrics for key, value in _spread(name, found[name], options.percentiles)}


def _spread(name: str, seconds: Sequence[float], percentiles: Sequence[float]) -> Iterator[tuple[str, float | None]]:
    """Mean, median, standard deviation and percentiles in milliseconds; linear between samples, as numpy has them."""
    values = 1e3 * np.array(seconds)
    for word, figure in (("mean", np.mean), ("median", np.median), ("std", np.std)):
        yield f"{word}_{name}_ms", float(figure(values)) if len(values) else None
    for percentile in percentiles:
        yield f"p{percentile:g}_{name}_ms", float(np.percentile(values, percentile)) if len(values) else None


def _saturation(load: Load) -> dict[str, float | None]:
    """In a closed loop, while every client had something to ask: tokens a second, and time outside engine steps.

    The ends of a run, when fewer and fewer are on their way, say nothing of a server under that load.
    """
    until = load.saturated_until
    if until is None or until <= load.started:
        return {"saturated_seconds": None, "saturated_output_throughput": None, "outside_engine_share": None}
    seconds = until - load.started
    tokens = sum(answer.tokens_until(until) for answer in load.answers)
    busy = load.counted_saturated.busy_seconds if load.counted_saturated else None
    share = None if busy is None else 1 - busy / seconds
    return {
        "saturated_seconds": seconds,
        "saturated_output_throughput": tokens / seconds,
        "outside_engine_share": share,
    }


def _deadlines(answers: Sequence[Answer], deadline_ms: float | None) -> dict[str, Any]:
    """Shares of all requests that add up to 1: whole in time, cut in time, late, refused, and anything else."""
    if deadline_ms is None:
        return {}
    kinds = Counter(deadline_kind(answer, deadline_ms) for answer in answers)
    shares = {f"deadline_{kind}_rate": kinds[kind] / len(answers) for kind in ("hit", "cut", "late", "refused", "lost")}
    return {"deadline_ms": deadline_ms, **shares}


def deadline_kind(answer: Answer, deadline_ms: float) -> str:
    """What became of a deadline, as its client sees it."""
    if answer.outcome == REFUSED:
        return "refused"
    if not answer.is_answered:
        return "lost"
    if 1e3 * (answer.ended - answer.sent) > deadline_ms:
        return "late"
    return "cut" if answer.outcome == CUT else "hit"


def _generator(load: Load, answered: Sequence[Answer]) -> dict[str, Any]:
    """Of this process: its share of a core, how late it sent, and how it knows the tokens of a chunk."""
    late = load.lateness
    return {
        "generator_cpu_share": load.cpu_share,
        "generator_p99_lateness_ms": 1e3 * float(np.percentile(late, 99)) if late else None,
        "token_sources": dict(Counter(answer.token_source for answer in answered)),
    }


def _prompt_tokens(answer: Answer) -> int:
    return answer.prompt_tokens or 0


def details(load: Load) -> dict[str, Any]:
    """Everything by request, under vLLM's names; times in seconds, those of starting from the first request's."""
    answers = load.answers
    return {
        "input_lens": [_prompt_tokens(a) for a in answers],
        "output_lens": [a.num_tokens for a in answers],
        "ttfts": [a.ttft or 0.0 for a in answers],
        "itls": [a.itls for a in answers],
        "token_gaps": [a.token_gaps for a in answers],
        "latencies": [a.e2el or 0.0 for a in answers],
        "start_times": [a.sent - load.started for a in answers],
        "queue_times": [a.sent - a.due for a in answers],
        "generated_texts": ["".join(a.texts) for a in answers],
        "errors": [a.error or "" for a in answers],
        "labels": [a.label for a in answers],
        "request_outcomes": [a.outcome for a in answers],
    }
