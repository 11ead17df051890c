"""A fork is what a new process would be: its arguments, surroundings, files, signals, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

SAY = """
import os, sys
print(sys.argv, os.getcwd(), os.environ["MARK"], "HOME" in os.environ, sys.stdin.read(), sys.path[:2])
print("torch" in sys.modules, [name for name in sys.modules if name.startswith("paceline")], file=sys.stderr)
sys.exit(7)
"""
WAIT = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


def test_it_has_what_it_was_given(python: str, tmp_path: Path) -> None:
    surroundings = {"MARK": "é", "PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere"}
    done = subprocess.run(
        [python, "-c", SAY, "-x", "a b"], input="in", capture_output=True, text=True, env=surroundings, cwd=tmp_path
    )
    assert done.stdout == f"{['-c', '-x', 'a b']} {tmp_path} é False in {['', '/nowhere']}\n"
    assert (done.stderr, done.returncode) == ("True []\n", 7)


def test_a_module_runs_as_the_main_one(python: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys; print(__name__, sys.argv, __file__)")
    done = subprocess.run([python, "-m", "own", "x"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"__main__ {[str(tmp_path / 'own.py'), 'x']} {tmp_path / 'own.py'}\n"
    assert done.returncode == 0


def test_an_error_is_a_traceback_and_exit_code_1(python: str) -> None:
    done = subprocess.run([python, "-c", "1 / 0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_end_it(python: str, sign: signal.Signals) -> None:
    with subprocess.Popen([python, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pid = int(process.stdout.readline())
        assert pid != process.pid
        process.send_signal(sign)
        code = process.wait(20)
        assert code in ((-sign, 1) if sign == signal.SIGINT else (-sign,))  # 1: torch._dynamo takes it from Python
        assert process.stderr.read().endswith("KeyboardInterrupt\n" if sign == signal.SIGINT else "")
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_options_of_pythons_own_are_obeyed(python: str) -> None:
    code = "import sys; print(sys.flags.no_site, 'torch' in sys.modules)"
    assert subprocess.run([python, "-S", "-c", code], capture_output=True, text=True).stdout == "1 False\n"


def test_a_client_may_go_at_the_moment_its_fork_ends(python: str) -> None:
    asked = json.dumps([["-c", "pass"], dict(os.environ), os.getcwd()]).encode()
    client = subprocess.Popen(
        [python, "-c", "print(1, flush=True); import time; time.sleep(0.2)"], stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    client.stdout.readline()
    with socket.socket(socket.AF_UNIX) as slow, open(os.devnull) as nothing:
        slow.connect(f"{python}.socket")
        socket.send_fds(slow, [len(asked).to_bytes(4, "big")], [nothing.fileno()] * 3)
        time.sleep(0.4)  # meanwhile the server waits for the rest, and then hears of both at once
        client.kill()
        client.communicate()
        slow.sendall(asked)
        assert slow.recv(4)
    assert subprocess.run([python, "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"
