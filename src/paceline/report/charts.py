"""The pictures as plain geometry, in pixels: template.html draws them as SVG. Knows nothing of HTML or colours.

A shape's `style` is a class of the style sheet, `c0` to `c7` being the drafters' and the measures' colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paceline.engine.trace import StepRecord
from paceline.report.places import Acceptance, Bin

NUM_COLOURS = 8
_FEWEST_NODES = 4  # that the axis of the timeline shows
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 40  # around the plot


@dataclass(frozen=True)
class Bar:
    """A rectangle; `title` is what hovering says."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str = ""


@dataclass(frozen=True)
class Dot:
    """A circle."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Line:
    """A polyline through SVG `points`."""

    points: str
    style: str


@dataclass(frozen=True)
class Mark:
    """A label at a place on an axis, or above a bar if it has a `y`."""

    x: float
    y: float
    text: str


@dataclass
class Chart:
    """One picture. Without shapes the page prints `absent` in its place."""

    title: str
    about: str
    x_label: str
    y_label: str
    width: int = 440
    height: int = 250
    absent: str = "Nothing was drafted."
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    x_marks: list[Mark] = field(default_factory=list)
    y_marks: list[Mark] = field(default_factory=list)
    notes: list[Mark] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)  # (style, label)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.bars or self.dots or self.lines)

    @property
    def left(self) -> int:
        """Where the plot begins."""
        return _LEFT

    @property
    def right(self) -> int:
        """Where the plot ends."""
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        """Where the x axis runs."""
        return self.height - _BOTTOM

    def x(self, share: float) -> float:
        """The pixel of a share of the x axis."""
        return round(_LEFT + share * (self.right - _LEFT), 2)

    def y(self, share: float) -> float:
        """The pixel of a share of the y axis."""
        return round(self.bottom - share * (self.bottom - _TOP), 2)

    def bar(self, start: float, width: float, foot: float, height: float, style: str, title: str) -> None:
        """Add a rectangle in shares of the axes."""
        left, top = self.x(start), self.y(foot + height)
        size = (round(self.x(start + width) - left, 2), round(self.y(foot) - top, 2))
        self.bars.append(Bar(left, top, *size, style, title))

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Add a polyline in shares of the axes."""
        self.lines.append(Line(" ".join(f"{self.x(x)},{self.y(y)}" for x, y in points), style))

    def dot(self, x: float, y: float, share: float, title: str) -> None:
        """Add a circle in shares of the axes; its area is a share of the largest's."""
        self.dots.append(Dot(self.x(x), self.y(y), round(2.5 + 8 * math.sqrt(share), 1), title))

    def mark_y(self, top: float, text: Callable[[float], str]) -> None:
        """Label the y axis, which runs from 0 to `top`."""
        self.y_marks = [Mark(_LEFT, self.y(tick / top), text(tick)) for tick in ticks(top)]

    def mark_x(self, top: float, text: Callable[[float], str]) -> None:
        """Label the x axis, which runs from 0 to `top`."""
        self.x_marks = [Mark(self.x(tick / top), self.bottom, text(tick)) for tick in ticks(top)]


def ticks(top: float, max_ticks: int = 6) -> list[float]:
    """Round numbers from 0 to `top`, about `most` at most; to 7, they are 0, 2, 4 and 6."""
    rough = top / max_ticks
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def percent(share: float) -> str:
    """For example 40 %."""
    return f"{share:.0%}".replace("%", " %")


def acceptance_chart(rows: Sequence[Acceptance], drafters: Sequence[str]) -> Chart:
    """Bars by depth, one per drafter."""
    chart = Chart(
        "Acceptance by depth and drafter",
        "Of the drafts whose parent was accepted: how many were the target's own token.",
        "depth in the draft tree",
        "accepted",
    )
    if not rows:
        return chart
    depth = max(row.depth for row in rows)
    slot = 0.8 / depth / len(drafters)
    for row in rows:
        start = (row.depth - 0.9) / depth + slot * drafters.index(row.drafter)
        title = f"{row.drafter}, depth {row.depth}: {row.num_accepted} of {row.num_judged} accepted"
        chart.bar(start, slot, 0.0, row.rate, colour(drafters, row.drafter), f"{title} ({percent(row.rate)})")
    stride = math.ceil(depth / 12)
    chart.x_marks = [Mark(chart.x((d - 0.5) / depth), chart.bottom, str(d)) for d in range(1, depth + 1, stride)]
    chart.mark_y(1.0, percent)
    chart.legend = [(colour(drafters, name), name) for name in drafters]
    return chart


def reliability_chart(bins: Sequence[Bin]) -> Chart:
    """Believed against right; on the diagonal the beliefs are as good as they claim."""
    chart = Chart(
        "Are the pacer's beliefs reliable?",
        "Drafts by the chance they were given, against the share that was right. A dot's area is their number.",
        "believed chance",
        "right",
    )
    if not bins:
        return chart
    draw_reliability(chart, bins, "drafts believed")
    return chart


def draw_reliability(chart: Chart, bins: Sequence[Bin], what: str) -> None:
    """Bins, at least one, as dots on and off the diagonal; `what` says of what each counts so many."""
    max_count = max(entry.count for entry in bins)
    chart.line([(0, 0), (1, 1)], "guide")
    chart.line([(entry.believed, entry.right) for entry in bins], "plain-line")
    for entry in bins:
        title = f"{entry.count} {what} {percent(entry.believed)}: {percent(entry.right)} right"
        chart.dot(entry.believed, entry.right, entry.count / max_count, title)
    chart.mark_x(1.0, percent)
    chart.mark_y(1.0, percent)


def time_chart(seconds: Sequence[tuple[str, float]]) -> Chart:
    """One bar per component."""
    about = "Wall-clock time; committing includes choosing the tokens and what drafters and pacer learn from them."
    chart = Chart("Time by component", about, "", "milliseconds", width=920, height=190, absent="It took no time.")
    top = max((value for _, value in seconds), default=0.0)
    if top <= 0.0:
        return chart
    total, slot = sum(value for _, value in seconds), 1 / len(seconds)
    for i, (name, value) in enumerate(seconds):
        title = f"{name}: {value * 1e3:.1f} ms, {percent(value / total)}"
        chart.bar((i + 0.2) * slot, 0.6 * slot, 0.0, 0.9 * value / top, "c0", title)
        chart.x_marks.append(Mark(chart.x((i + 0.5) * slot), chart.bottom, name))
        chart.notes.append(Mark(chart.x((i + 0.5) * slot), chart.y(0.9 * value / top) - 4, percent(value / total)))
    chart.mark_y(top / 0.9 * 1e3, lambda tick: f"{tick:g}")
    return chart


def timeline_chart(steps: Sequence[StepRecord]) -> Chart:
    """A bar per step: as wide as it took, as high as its tree; what was accepted is filled."""
    chart = Chart(
        "Timeline of steps",
        "Each bar is one step: its width the time it took, its height the draft nodes verified, the filled part the "
        "ones accepted.",
        "milliseconds of decoding",
        "draft nodes",
        width=920,
        height=190,
        absent="There was no step.",
    )
    spent = [step.seconds for step in steps]
    total, largest = sum(spent), max(_FEWEST_NODES, *(len(step.tree) for step in steps), 0)
    if total <= 0.0:
        return chart
    start = 0.0
    for index, (step, seconds) in enumerate(zip(steps, spent, strict=True)):
        place, accepted = (start / total, seconds / total), min(len(step.path), step.num_emitted)
        title = (
            f"step {index + 1}: {seconds * 1e3:.2f} ms, {len(step.tree)} draft nodes, {accepted} accepted, "
            f"{step.num_emitted} tokens emitted"
        )
        chart.bar(*place, 0.0, max(len(step.tree) / largest, 0.015), "offered", title)
        chart.bar(*place, 0.0, accepted / largest, "taken", title)
        start += seconds
    chart.mark_x(total * 1e3, lambda tick: f"{tick:g}")
    chart.mark_y(largest, lambda tick: f"{tick:g}")
    chart.legend = [("offered", "draft nodes"), ("taken", "accepted")]
    return chart


def risk_chart(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], base: float) -> Chart:
    """The share of errors among the surest part, as the part grows."""
    chart = Chart(
        "Risk and coverage",
        "Keep only the fields of which the model was surest: how many of those kept are wrong. The dashed line is "
        "keeping fields by chance.",
        "fields kept",
        "of them wrong",
        width=560,
        height=300,
        absent="No field was answered.",
    )
    if not curves:
        return chart
    top = max(0.1, *(risk for _, curve in curves for _, risk in curve))
    chart.line([(0, base / top), (1, base / top)], "guide")
    for index, (name, curve) in enumerate(curves):
        chart.line([(coverage, risk / top) for coverage, risk in curve], f"c{index}")
        chart.legend.append((f"c{index}", name))
    chart.mark_x(1.0, percent)
    chart.mark_y(top, percent)
    return chart


def colour(drafters: Sequence[str], name: str) -> str:
    """A drafter's class."""
    return f"c{drafters.index(name) % NUM_COLOURS}"
