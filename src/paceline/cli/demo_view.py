"""What `paceline demo` shows: two texts that grow on a terminal, or plain lines elsewhere, and the result."""

from __future__ import annotations

import sys

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from paceline.cli.generate import coloured, earned
from paceline.cli.race import TURN, Racer, race

_SIDE_BY_SIDE = 110  # columns
_LINES_AROUND = 7  # of the heading and the prompt
_RULES = (
    f"They take turns of {TURN * 1e3:.0f} ms, and each clock counts its own decoding alone, "
    "reading the prompt included."
)

Pair = tuple[Racer, Racer]


def show_race(heading: list[str], prompt: str, pair: Pair) -> None:
    """Run the race before the user's eyes; where output is no terminal, print its text at the end."""
    console = _console()
    for line in (*heading, _RULES, f"The prompt: {prompt}"):
        console.print(line, markup=False)
    if sys.stdout.isatty() and not console.is_dumb_terminal:
        _show_live(console, pair)
        return
    for _ in race(pair):
        pass
    for racer in pair if pair[0].output.text != pair[1].output.text else pair[1:]:
        console.print(f"\n{racer.output.text}\n", markup=False)


def show_result(pair: Pair) -> None:
    """Both clocks, who drafted what, and how much sooner it was."""
    console = _console()
    colours = _colours(pair[1])
    for racer in pair:
        stats = racer.output.stats
        line = f"{racer.name}: {_clock(racer)} · {stats.mean_acceptance_length:.2f} tokens a step"
        console.print(Text(line) + earned(stats, colours))
    console.print(Text(verdict(pair[0].seconds, pair[1].seconds), style="bold"))


def verdict(plain: float, ours: float) -> str:
    """How much sooner it was, or that it was not, from both clocks in seconds."""
    if ours < plain:
        return f"Same bytes, {plain / ours:.2f} times sooner."
    return f"Same bytes, but no sooner: {ours / plain:.2f} times as long. Drafting did not pay here."


def _console() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _show_live(console: Console, pair: Pair) -> None:
    """Drawn between turns by this thread: a thread that draws would take its time from the clocks."""
    try:
        with Live(console=console, auto_refresh=False) as live:
            for _ in race(pair):
                live.update(panes(pair, console, is_whole=False), refresh=True)
            live.update(panes(pair, console, is_whole=True), refresh=True)
    finally:
        console.show_cursor()  # Ctrl-C may come while `Live` hides it


def panes(pair: Pair, console: Console, is_whole: bool) -> RenderableType:
    """Both texts, side by side if there is room; their last lines, or `is_whole`."""
    is_wide = console.width >= _SIDE_BY_SIDE
    room = (console.height - _LINES_AROUND) // (1 if is_wide else 2) - 2
    height = None if is_whole else max(room, 2)
    width = (console.width // 2 if is_wide else console.width) - 4
    boxes = [_pane(racer, console, width, height) for racer in pair]
    grid = Table.grid(expand=True)
    if is_wide:
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(*boxes)
    else:
        for box in boxes:
            grid.add_row(box)
    return grid


def _pane(racer: Racer, console: Console, width: int, height: int | None) -> Panel:
    colours: dict[str, str] = {}
    text = Text().join(coloured(token.text, token.source, colours) for token in racer.tokens)
    if height is not None:
        lines = text.wrap(console, width)
        text = Text("\n").join(lines[-height:])
    title = f"{racer.name} · {_clock(racer)} · {_tokens_per_step(racer):.1f} tokens a step"
    return Panel(text, title=title, title_align="left", height=height and height + 2)


def _clock(racer: Racer) -> str:
    return f"{len(racer.tokens)} tokens in {racer.seconds:.2f} s"


def _tokens_per_step(racer: Racer) -> float:
    """So far: a step ends with a token of the target's own, but for the last one where it is cut."""
    return len(racer.tokens) / max(sum(token.source == "target" for token in racer.tokens), 1)


def _colours(racer: Racer) -> dict[str, str]:
    """The colour of each drafter, as its tokens had it."""
    colours: dict[str, str] = {}
    for token in racer.tokens:
        coloured(token.text, token.source, colours)
    return colours
