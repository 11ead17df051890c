"""What drafting has saved or lost after each step, and may have lost: of the engine, and of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from plots.figure import COLOURS, GREY, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHTS = (3.2, 2.6)  # inches
_BLUE, _RED = COLOURS[:2]
_HOPELESS = "noise"


@dataclass(frozen=True)
class Balance:
    """An account at its opening or after a step: tokens that the engine has decoded so far, and seconds saved by then.

    Seconds lost are negative. By the books, whose costs are estimates, they are proven never to fall below `floor`.
    """

    num_tokens: int
    by_the_clock: float
    by_the_books: float
    floor: float


@dataclass(frozen=True)
class Books:
    """The accounts as they opened and after every step, and the seconds that plain decoding is held to take."""

    names: Sequence[str]  # of the requests: what kind of text
    engine: Sequence[Balance]
    requests: Sequence[Sequence[Balance]]
    plain: float

    @staticmethod
    def least(account: Sequence[Balance]) -> float:
        """The least seconds that were left to lose."""
        return min(balance.by_the_books - balance.floor for balance in account)


def draw_books(books: Books, path: Path) -> None:
    """The engine's account above, the requests' below, over decoded tokens.

    Raises:
        ConfigError: as `figure.save`.
    """
    ends = [0, *(account[-1].num_tokens for account in books.requests)]
    with panels(_HEIGHTS, path, share_x=True) as (above, below):
        for panel, account in (above, books.engine), *((below, account) for account in books.requests):
            _account(panel, account)
        for panel in (above, below):
            _requests(panel, books.names, ends)
        above.set_title("All requests together: 2 % of plain decoding may be lost, and 32 plain steps once")
        below.set_title("Each request for itself: 10 %, and 4 plain steps")
        below.set_xlabel("tokens decoded")
        above.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0.0, 0.93))


def _account(panel: Axes, account: Sequence[Balance]) -> None:
    """Three lines over decoded tokens, in milliseconds."""
    tokens = [balance.num_tokens for balance in account]
    clock, books, floor = (
        [1e3 * getattr(balance, name) for balance in account] for name in ("by_the_clock", "by_the_books", "floor")
    )
    panel.plot(tokens, clock, color=_BLUE, linewidth=1.8, label="saved, by the clock")
    panel.plot(tokens, books, color=_BLUE, linewidth=1, linestyle=":", label="saved, by the guard's books")
    panel.plot(tokens, floor, color=_RED, linewidth=1.3, label="never below, by the guard's books")


def _requests(panel: Axes, names: Sequence[str], ends: Sequence[int]) -> None:
    """Where requests begin and end; shaded where nothing can be drafted."""
    for name, (begin, end) in zip(names, pairwise(ends), strict=True):
        if name == _HOPELESS:
            panel.axvspan(begin, end, color=GREY, alpha=0.13, linewidth=0)
        middle = (begin + end) / 2
        panel.text(middle, 1.0, name, transform=panel.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    panel.axhline(0.0, color=GREY, linewidth=0.8)
    panel.grid(axis="y")
    panel.set_xlim(0, ends[-1])
    panel.set_ylabel("ms")
