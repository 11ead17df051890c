"""The command on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time


class Terminal:
    """`paceline` with arguments, as it looks on a terminal that also is the one it is controlled by.

    `code` runs in its place, with the same arguments.
    """

    def __init__(self, *args: str, columns: int = 80, code: str = "", python: str = sys.executable, **env: str) -> None:
        start = ("-c", code) if code else ("-m", "paceline")
        self._own, theirs = pty.openpty()
        size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", python, *start, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **size, **env},
        )
        os.close(theirs)
        self.seen = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._own, keys.encode())

    def read_until(self, wanted: str | None, seconds: float = 30, since: str = "") -> str:
        """All that was shown when `wanted` was, behind the last `since`; None waits for the end."""
        end = time.monotonic() + seconds
        while wanted is None or wanted not in self.seen[self.seen.rfind(since) if since else 0 :]:
            assert select.select([self._own], [], [], max(end - time.monotonic(), 0))[0], f"too late: {self.seen!r}"
            try:
                part = os.read(self._own, 65536)
            except OSError:  # how Linux says that the other end is closed
                part = b""
            if not part:
                assert wanted is None, f"it ended: {self.seen!r}"
                break
            self.seen += part.decode(errors="replace")
        return self.seen

    def end(self) -> int:
        """The exit code, once it has ended."""
        self.read_until(None)
        os.close(self._own)
        return self.process.wait(timeout=60)
