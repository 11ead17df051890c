"""Outputs as the template shows them: every token with its text, its colours and what hovering says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.output import Output
from paceline.report.charts import Chart, colour, timeline_chart
from paceline.report.measures import MeasuredToken, alternatives, measured
from paceline.report.spans import UncertainSpan, spans_of

NUM_ALTERNATIVES = 5
KINDS = {"accepted": "c2", "corrected": "c5", "bonus": "c0", "plain": "neutral"}  # what a place is called, its colour
ENTROPY_SCALE = 2.5  # nats at which the colour has 63 % of its strength; it never quite has all
MARGIN_SCALE = 1.5  # at which 37 % are left


@dataclass(frozen=True)
class TokenView:
    """One token on the page."""

    index: int
    lines: list[str]  # its text, cut at line breaks
    is_fragile: bool
    is_blank: bool  # nothing to see: a part of a character, an end-of-sequence token


@dataclass(frozen=True)
class Segment:
    """Tokens in a row, inside or outside an area of uncertainty."""

    area: int | None  # from 1
    tokens: list[TokenView]


@dataclass(frozen=True)
class OutputView:
    """One output on the page."""

    prompt: str
    segments: list[Segment]
    spans: list[UncertainSpan]
    facts: list[tuple[str, str]]
    data: list[dict[str, Any]]  # by token, for the script
    timeline: Chart


def view(output: Output, drafters: Sequence[str]) -> OutputView:
    """How an output is shown; `drafters` fixes the colours."""
    tokens = measured(output)
    spans = spans_of(tokens)
    data = [_datum(token, drafters) | {"top": _top(output, i)} for i, token in enumerate(tokens)]
    prompt = visible(output.origin.decode(output.origin.prompt_token_ids))
    segments = list(_segments(tokens, spans))
    return OutputView(prompt, segments, spans, _facts(output), data, timeline_chart(output.steps))


def visible(text: str) -> str:
    """Text with control characters as their pictures (U+2400 on), line breaks and tabs left."""
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)


def _segments(tokens: Sequence[MeasuredToken], spans: Sequence[UncertainSpan]) -> Iterator[Segment]:
    views = [_token_view(i, token) for i, token in enumerate(tokens)]
    done = 0
    for number, span in enumerate(spans, 1):
        if span.start > done:
            yield Segment(None, views[done : span.start])
        yield Segment(number, views[span.start : span.end])
        done = span.end
    if views[done:]:
        yield Segment(None, views[done:])


def _token_view(index: int, token: MeasuredToken) -> TokenView:
    text = visible(token.token.text)
    return TokenView(index, text.split("\n"), token.is_fragile, not text)


def _datum(token: MeasuredToken, drafters: Sequence[str]) -> dict[str, Any]:
    emitted, place = token.token, token.place
    by_target = emitted.source == "target"
    return {
        "id": emitted.id,
        "text": visible(emitted.text),
        "entropy": round(emitted.entropy, 3),
        "probability": round(token.probability, 5),
        "margin": round(emitted.margin, 4) if math.isfinite(emitted.margin) else None,
        "disagreement": None if place.disagreement is None else round(place.disagreement, 4),
        "kind": place.kind,
        "source": emitted.source,
        "step": place.step + 1,
        "depth": place.depth,
        "fragile": token.is_fragile,
        "levels": _levels(token),
        "colours": {
            "kind": KINDS[place.kind],
            "drafter": "neutral" if by_target else colour(drafters, emitted.source),
        },
    }


def _levels(token: MeasuredToken) -> dict[str, float | None]:
    """How strongly a token is coloured by each measure, from 0 to 1; None for no colour at all."""
    disagreement = token.place.disagreement
    return {
        "entropy": round(1.0 - math.exp(-token.token.entropy / ENTROPY_SCALE), 3),
        "probability": round(1.0 - token.probability, 3),
        "margin": round(math.exp(-max(token.token.margin, 0.0) / MARGIN_SCALE), 3),
        "disagreement": None if disagreement is None else round(disagreement, 3),
    }


def _top(output: Output, index: int) -> list[tuple[str, float]]:
    return [(visible(text), round(chance, 5)) for text, chance in alternatives(output, index)[:NUM_ALTERNATIVES]]


def _facts(output: Output) -> list[tuple[str, str]]:
    stats, params = output.stats, output.origin.params
    return [
        ("tokens", str(len(output.tokens))),
        ("steps", str(len(output.steps))),
        ("tokens a step", f"{stats.mean_acceptance_length:.2f}"),
        ("tokens/s", f"{stats.tokens_per_second:.0f}"),
        ("temperature", f"{params.temperature:g}"),
        ("seed", str(output.seed)),
        ("ended by", output.finish_reason),
    ]
