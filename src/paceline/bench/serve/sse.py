"""Server-sent events from bytes as they arrive, by the parsing rules of the HTML standard (section 9.2.6).

httpx's own lines also end at U+2028 and U+0085, which JSON may hold as they are.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")  # a last \r may be half of \r\n
DONE = "[DONE]"


class EventParser:
    """Turns bytes, cut anywhere, into the data of events; comments and other fields are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[str]:
        """The data of all events that are complete by now."""
        *lines, self._rest = _LINE_END.split(self._rest + received)
        events = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
