"""What the user says: typed with editing, history and completion, or line by line from a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from paceline.cache import state_folder

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

_PROMPT, _CONTINUED = "> ", ". "
_LONGEST_HISTORY = 2**20  # bytes; of a longer one the first half goes


class Reader(Protocol):
    """Where messages come from."""

    is_interactive: bool

    def read(self) -> str:
        """The next message.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C where nothing was typed.
        """


class LineReader:
    """One message a line; a backslash at its end joins the next one to it."""

    is_interactive = False

    def __init__(self, lines: TextIO) -> None:
        if isinstance(lines, io.TextIOWrapper):
            lines.reconfigure(errors="replace")
        self._lines = lines

    def read(self) -> str:
        """See `Reader`."""
        message = ""
        while line := self._lines.readline():
            message += line.removesuffix("\n").removesuffix("\r")
            if not message.endswith("\\"):
                return message
            message = message[:-1] + "\n"
        if not message:
            raise EOFError
        return message


class TypedReader:
    """Messages typed at a terminal."""

    is_interactive = True

    def __init__(
        self, commands: Iterable[str], history: History, source: Input | None = None, sink: Output | None = None
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=history,
            multiline=True,
            key_bindings=_keys(),
            completer=_Commands(commands),
            complete_while_typing=Condition(self._is_command),
            prompt_continuation=_CONTINUED,
            input=source,
            output=sink,
        )

    def read(self) -> str:
        """See `Reader`."""
        return self._session.prompt(_PROMPT)

    def _is_command(self) -> bool:
        return self._session.default_buffer.text.startswith("/")


class _Commands(Completer):
    """Completes a word that begins a message with a slash."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Commands that begin as the text does."""
        typed = document.text_before_cursor
        if typed.startswith("/") and not any(c.isspace() for c in typed):
            yield from (Completion(name, -len(typed)) for name in self._names if name.startswith(typed))


def _keys() -> KeyBindings:
    """Enter sends, Alt-Enter and a backslash before Enter begin a line; Ctrl-C first empties what was typed."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return keys


class _SafeHistory(FileHistory):
    """A history that a full disk does not end the chat for."""

    def store_string(self, string: str) -> None:
        """Append a message, if that can be done."""
        with suppress(OSError):
            super().store_string(string)


def open_history() -> History:
    """The history file, for the user's eyes alone; in memory where there can be none."""
    file = state_folder() / "chat-history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        _shorten(file)
        return _SafeHistory(str(file))
    except OSError:
        return InMemoryHistory()


def _shorten(file: Path) -> None:
    if file.stat().st_size > _LONGEST_HISTORY:
        text = file.read_bytes()
        start = text.find(b"\n# ", len(text) // 2)  # where an entry begins
        file.write_bytes(text[start:] if start >= 0 else b"")


def reader_for(commands: Iterable[str]) -> Reader:
    """A `TypedReader` at a terminal, a `LineReader` elsewhere."""
    stdin: Any = sys.stdin
    if stdin.isatty() and sys.stdout.isatty():
        return TypedReader(commands, open_history())
    return LineReader(stdin)
