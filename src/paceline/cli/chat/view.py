"""What `paceline chat` prints: answers coloured by drafter, a quiet line of figures, notes and errors."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from paceline.cli.chat.answer import REASONING, Figures, Piece
from paceline.cli.generate import coloured
from paceline.console import printable


class View:
    """Answers go to stdout; the rest too where a user reads both, to stderr where answers go into a pipe."""

    def __init__(self, is_interactive: bool) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        aside = {"file": sys.stdout} if is_interactive else {"stderr": True}
        self._aside = Console(highlight=False, soft_wrap=True, **aside)
        self._colours: dict[str, str] = {}
        self._is_line_begun = False

    def piece(self, piece: Piece) -> None:
        """Some of an answer, at once."""
        text = printable(piece.text)
        shown = Text(text, style="dim italic") if piece.source == REASONING else self._coloured(text, piece.source)
        self._out.print(shown, end="")
        self._out.file.flush()
        self._is_line_begun = not text.endswith("\n") if text else self._is_line_begun

    def end_line(self) -> None:
        """Go to the beginning of a line."""
        if self._is_line_begun:
            self._out.print()
        self._is_line_begun = False

    def figures(self, figures: Figures, is_cut: bool) -> None:
        """The line below an answer, and what else is to be said about it."""
        self.end_line()
        line = Text("stopped · " if is_cut else "") + Text(self._summary(figures))
        line.stylize("dim")
        for name, (accepted, proposed) in figures.drafters.items():
            line.append(" · ", style="dim")
            line.append(f"{printable(name)} {accepted}/{proposed}", style=f"dim {self._colours.get(name, '')}".strip())
        self._aside.print(line)
        for note in figures.notes:
            self.note(note)

    def stats(self, figures: Figures) -> None:
        """All figures of an answer, one a line."""
        for name, value in _rows(figures):
            self.say(f"{name:<18}{value}")

    def say(self, text: str) -> None:
        """What a command answers."""
        self._aside.print(Text(printable(text)))

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.end_line()
        self._aside.print(Text(printable(text), style="yellow"))

    def error(self, error: Exception) -> None:
        """Why there is no answer, or not all of it, in one line."""
        self.end_line()
        self._aside.print(Text(printable(" ".join(str(error).split())), style="red"))

    def _coloured(self, text: str, source: str) -> Text:
        return coloured(text, source, self._colours)

    @staticmethod
    def _summary(figures: Figures) -> str:
        parts = [f"{figures.num_tokens} tokens in {figures.seconds:.2f} s"]
        if figures.tokens_per_second:
            parts.append(f"{figures.tokens_per_second:.0f} tokens/s")
        if figures.tokens_per_step:
            parts.append(f"{figures.tokens_per_step:.2f} tokens a step")
        return " · ".join(parts)


def _rows(figures: Figures) -> list[tuple[str, str]]:
    """Names and values of what is known."""
    rows = [("tokens", str(figures.num_tokens)), ("seconds", f"{figures.seconds:.2f}")]
    if figures.first_seconds is not None:
        rows.append(("first text after", f"{figures.first_seconds:.2f} s"))
    if figures.tokens_per_second:
        rows.append(("tokens/s", f"{figures.tokens_per_second:.1f}"))
    if figures.num_prompt_tokens is not None:
        cached = f", {figures.num_cached_tokens} of them cached" if figures.num_cached_tokens is not None else ""
        rows.append(("prompt tokens", f"{figures.num_prompt_tokens}{cached}"))
    if figures.tokens_per_step:
        rows.append(("tokens a step", f"{figures.tokens_per_step:.2f}"))
    if figures.num_draft_tokens:
        rows.append(("drafts accepted", _share(figures.num_accepted_draft_tokens, figures.num_draft_tokens)))
    rows += [(f"  {name}", _share(*counts)) for name, counts in figures.drafters.items()]
    return [*rows, ("ended by", figures.finish_reason)]


def _share(accepted: int, proposed: int) -> str:
    return f"{accepted} of {proposed} ({accepted / proposed:.0%})"
