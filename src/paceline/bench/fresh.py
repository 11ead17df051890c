"""A fresh process that is asked one thing after the other: what one does must not be seen in what another takes.

It runs `python -m paceline.bench.fresh MODULE:FUNCTION`. The function is a context manager that opens what is to be
measured, and yields what answers. Settings, questions and answers are JSON, one a line. The process ends when it is
closed, and by itself when whoever asked is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from typing_extensions import Self

from paceline.errors import PacelineError, StateError, first_line

_PATIENCE = 60.0  # seconds in which it has to end, with what it keeps for the next process
_LAST_WORDS = 2000  # characters of what it said last


class FreshProcess:
    """One such process, from entering it to leaving it.

    Args:
        serve: `module:function`.
        settings: the function's arguments, ready for JSON.
        environment: variables beside this process's own.
    """

    def __init__(self, serve: str, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self._serve, self._settings, self._environment = serve, settings, environment or {}
        self.opened: Any = None  # what it said when it was ready

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()  # closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._serve],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | self._environment,
        )
        try:
            self.opened = self.ask(**self._settings)
        except BaseException:
            self._end(patience=0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(_PATIENCE if kind is None else 0.0)

    def ask(self, **question: Any) -> Any:
        """The answer to a question.

        Raises:
            StateError: the process has failed or died; it says how.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StateError(f"the process that measures {self._serve} has ended: {self._last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise StateError(f"{self._serve} failed: {answer['error']}")
        return answer["answer"]

    def _end(self, patience: float) -> None:
        """Let it end by itself for so long, then end it; with no patience before it hears that nobody asks any more."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not patience:
                process.kill()
            process.stdin.close()
            process.wait(patience)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
        finally:
            process.kill()  # Ctrl-C while it was waited for
            process.wait()
            process.stdout.close()
            self._log.close()

    def _last_words(self) -> str:
        self._process.wait()
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _LAST_WORDS, 0))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def main() -> None:
    """Open what was asked for, and answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked, who then ends this
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    module, _, function = sys.argv[1].partition(":")
    serve = getattr(importlib.import_module(module), function)

    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        with serve(**json.loads(sys.stdin.readline())) as (opened, answer):
            say({"answer": opened})
            for line in sys.stdin:
                say({"answer": answer(**json.loads(line))})
    except PacelineError as error:
        say({"error": first_line(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
