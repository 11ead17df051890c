"""Python that has read torch and transformers already: to read them again takes seconds, and tells a test nothing.

Not for tests of a cold start, of what is imported, or of what libraries read from the environment when they are loaded.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
NOTHING = "/dev/null"
COMMAND = """#!/bin/sh
case "$1" in
-m | -c) exec {client} "$@" ;;
*) exec "{python}" "$@" ;;
esac
"""


@contextmanager
def python(folder: Path) -> Iterator[str]:
    """An interpreter for `subprocess`; those who name the same folder share what it has read.

    With options of Python's own it is Python as it is.
    """
    if not Path("/proc/self/task").is_dir():  # whether a fork is safe cannot be told
        yield sys.executable
        return
    command, path = folder / "python", folder / "python.socket"
    with socket.socket(socket.AF_UNIX) as held:  # the server ends with the last who holds it
        with open(folder / "python.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_held(held, path):
                path.unlink(missing_ok=True)
                start(held, path)
            client = f'"{sys.executable}" -I -S "{HERE / "client.py"}" "{path}"'
            command.write_text(COMMAND.format(client=client, python=sys.executable))
            command.chmod(0o700)
        yield str(command)


def is_held(connection: socket.socket, path: Path) -> bool:
    """Whether a server listens there, which then stays until the connection is closed."""
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    connection.sendall(bytes(4))
    return True


def start(connection: socket.socket, path: Path) -> None:
    """In a session of its own: Ctrl-C is for the tests, whose end is its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(HERE / "server.py"), str(path)]
    files = [(os.POSIX_SPAWN_OPEN, 0, NOTHING, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, NOTHING, os.O_WRONLY, 0)]
    pid = os.posix_spawn(sys.executable, command, environment, file_actions=files, setsid=True)
    while not is_held(connection, path):
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the server that forks has ended"
        time.sleep(0.05)
