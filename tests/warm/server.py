"""`python server.py SOCKET`: Python that has read torch and transformers, once; each connection gets a fork of it.

Nothing of Paceline is read here, so a fork reads all of it as a new process would. A connection without arguments is
held by somebody who may ask: when the last of them has gone, this ends. A fork is killed when whoever asked has gone.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

READ = ("torch", "transformers", "transformers.modeling_utils", "transformers.models.llama.modeling_llama")
Asked = tuple[list[str], dict[str, str], str]  # arguments, environment, folder


class Server:
    """What listens, who holds it, and who waits for which fork."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._woken, self._waker = socket.socketpair()
        for one in (self._woken, self._waker):
            one.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._holders: list[socket.socket] = []
        self._children: dict[socket.socket, int] = {}

    def fork(self) -> Asked:
        """What a fork is asked to do; the server itself does not come back, but ends."""
        while True:
            waiting = [self._listener, self._woken, *self._holders, *self._children]
            for ready in select.select(waiting, [], [])[0]:
                if ready is self._listener:
                    if asked := self._accept():
                        return asked
                elif ready is self._woken:
                    self._woken.recv(4096)
                    self._reap()
                elif ready.fileno() >= 0:  # else it was told that its fork has ended, just now
                    self._forget(ready)

    def _accept(self) -> Asked | None:
        connection, _ = self._listener.accept()
        head, files, _, _ = socket.recv_fds(connection, 4, 3)
        size = int.from_bytes(head, "big")
        if not size:
            self._holders.append(connection)
            return None
        asked = json.loads(connection.recv(size, socket.MSG_WAITALL))
        assert len(os.listdir("/proc/self/task")) == 1, "threads are lost in a fork"
        if (pid := os.fork()) == 0:
            self._leave(connection, files)
            return asked  # type: ignore[no-any-return]
        for file in files:
            os.close(file)
        self._children[connection] = pid
        with suppress(OSError):  # gone already: that is seen next
            connection.sendall(pid.to_bytes(4, "big"))
        return None

    def _leave(self, connection: socket.socket, files: list[int]) -> None:
        """In the fork: nothing of the server is left, and the files of whoever asked are its first three."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in (self._listener, self._woken, self._waker, connection, *self._holders, *self._children):
            one.close()
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)

    def _reap(self) -> None:
        for connection, pid in [*self._children.items()]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[connection]
                with suppress(OSError), connection:
                    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))

    def _forget(self, gone: socket.socket) -> None:
        gone.close()
        if pid := self._children.pop(gone, None):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        self._holders.remove(gone)
        if not self._holders:
            for pid in self._children.values():
                os.kill(pid, signal.SIGKILL)
            os._exit(0)


def become(environment: dict[str, str], folder: str) -> None:
    """What a new process would have from its environment."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.path.join(os.path.dirname(PATH), "compiled")  # for the next
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    is_unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = reopened(sys.stdin, "r")
    sys.stdout = sys.__stdout__ = reopened(sys.stdout, "w", write_through=is_unbuffered)
    sys.stderr = sys.__stderr__ = reopened(sys.stderr, "w", line_buffering=True)


def reopened(stream: Any, mode: str, **how: bool) -> Any:
    made = open(stream.fileno(), mode, encoding=stream.encoding, errors=stream.errors, newline="\n", closefd=False)  # noqa: SIM115
    made.reconfigure(**{"line_buffering": made.isatty(), **how})
    return made


def run(arguments: list[str]) -> None:
    """As `python` runs them: `-m MODULE ...` or `-c CODE ...`."""
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        sys.path.insert(0, os.getcwd())
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, "")
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})


if __name__ == "__main__":
    gc.disable()  # in the processes too, which are short: amid all that is imported it takes a second each time
    for name in READ:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    PATH = sys.argv[1]
    arguments, environment, folder = Server(PATH).fork()
    become(environment, folder)
    run(arguments)
