"""`python -I -S client.py SOCKET ARGUMENTS`: the process that stands for one that the server forks.

It hands on arguments, environment, folder and the first three files, then signals, and ends as that one ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def run(path: str, arguments: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps([arguments, dict(os.environ), os.getcwd()]).encode()
        socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(asked)
        pid = number_from(server)
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sign, lambda sign, frame: os.kill(pid, sign))
        code = number_from(server)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def number_from(server: socket.socket) -> int:
    sent = server.recv(4, socket.MSG_WAITALL)
    assert len(sent) == 4, "the server that forks has ended"
    return int.from_bytes(sent, "big", signed=True)


run(sys.argv[1], sys.argv[2:])
