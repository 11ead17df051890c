"""An adapter's process: started in its peer's environment, asked one thing at a time, given up when it is silent."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.protocol import MAX_REASON, Target, Turn

LOAD_SECONDS = 600.0  # a compiler runs in some peers before the first token
TURN_SECONDS = 120.0


class PeerError(Exception):
    """Why a peer or one of its modes does not compete, in one line."""


class PeerProcess:
    """A peer with its modes loaded, waiting for turns."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], target: Target, log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=dict(environment),
            )
        try:
            opened = self._ask(asdict(target), LOAD_SECONDS)
        except PeerError:
            self.close()
            raise
        self.modes: list[str] = opened["modes"]
        self.failed: dict[str, str] = opened["failed"]
        self.versions: dict[str, str] = opened["versions"]

    @property
    def is_alive(self) -> bool:
        """False once it has died or was given up."""
        return self._process.poll() is None

    def decode(self, turn: Turn) -> tuple[tuple[int, ...], float]:
        """The tokens of a turn, and its seconds.

        Raises:
            PeerError: the mode failed, or the whole process did: then `is_alive` is False.
        """
        answer = self._ask(asdict(turn), TURN_SECONDS)
        if "error" in answer:
            raise PeerError(answer["error"])
        return tuple(answer["tokens"]), answer["seconds"]

    def withdraw(self, mode: str, why: str) -> None:
        """Strike a mode off those that are ready."""
        self.modes.remove(mode)
        self.failed[mode] = why

    def close(self) -> None:
        """End the process; one that does not end by itself is killed."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # it died with a request unread
                pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
        except OSError as error:
            raise PeerError(self._why()) from error
        if not select.select([stdout], [], [], seconds)[0]:
            self._process.kill()
            self._process.wait()
            raise PeerError(f"no answer in {seconds:.0f} s")
        line = stdout.readline()
        if not line:
            raise PeerError(self._why())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _why(self) -> str:
        return f"died with exit code {self._process.wait()}: {last_line(self._log)}"


def export(command: Sequence[str], environment: Mapping[str, str], target: Target, log: Path) -> None:
    """Let an adapter write the weights in its peer's format.

    Raises:
        PeerError: it could not.
    """
    with log.open("w", encoding="utf-8") as stderr:
        done = subprocess.run(
            [*command, "export"],
            input=json.dumps(asdict(target)) + "\n",
            text=True,
            env=dict(environment),
            stdout=stderr,
            stderr=stderr,
        )
    if done.returncode != 0:
        raise PeerError(f"export failed: {last_line(log)}")


def environment_of(folders: Sequence[Path], threads: int) -> dict[str, str]:
    """The environment of every adapter: the same threads, no network, and these folders to import from."""
    inherited = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    path = os.pathsep.join([*map(str, folders), *inherited])
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    return {**os.environ, **settings, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:MAX_REASON] if lines else "it said nothing"
