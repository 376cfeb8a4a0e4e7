"""Any process of a run is killed at any moment between its start and its end: all ends within seconds, and nothing is left.

The moments are spread evenly over the time that an undisturbed run takes, the victims go round; a failure names both.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.testkit.laptop import Laptop, Run, cmdline, describe, parent
from tests.testkit.target import Target, wait_for

ROUNDS = 10  # per victim
PATIENCE = 10  # seconds until everything must have ended
# Short, with something of everything: children, files, names, a connection, a listener
PROGRAM = """
import socket, subprocess, sys
held = open("/srv/big", "rb"); held.read(10)
child = subprocess.Popen(["sh", "-c", "cat /srv/config.txt; sleep 0.4"])
l = socket.create_server(("0.0.0.0", 8080))
s = socket.create_connection(("db.staging.internal", 7000)); s.sendall(b"x"); s.recv(1)
child.wait(); print("done", flush=True)
"""


def trap(run: Run) -> int:
    return run.process.pid


def session(run: Run) -> int:
    """Trap's child that is not the program: the first that it starts."""
    return min((pid for pid in run.processes() if has_parent(pid, run.process.pid)), default=0)


def agent(run: Run) -> int:
    return next((pid for pid in run.processes() if b"sidestage.agent.main" in cmdline(pid)), 0)


def program(run: Run) -> int:
    return next((pid for pid in run.processes() if cmdline(pid).split(b"\0")[2:3] == [PROGRAM.encode()]), 0)


def has_parent(pid: int, other: int) -> bool:
    try:
        return parent(pid) == other
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("victim", [trap, session, agent, program], ids=lambda role: role.__name__)
def test_killed_at_any_moment(here: Laptop, staging: Target, victim: Callable[[Run], int]) -> None:
    argv = [sys.executable, "-c", PROGRAM]
    length, hits = 60.0, 0
    for _ in range(2):  # the first is cold
        started = time.monotonic()
        whole = here.start(staging, argv)
        assert whole.end() == 0, whole.stderr()
        assert whole.stdout() == "remote data\ndone\n"
        length = min(length, time.monotonic() - started)
    for n in range(ROUNDS):
        moment = length * (n + 0.5) / ROUNDS
        run = here.start(staging, argv)
        time.sleep(moment)
        pid = victim(run)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                hits += 1
        code = run.end(PATIENCE)
        say = f"{victim.__name__} killed after {moment:.3f} s: {code}, {run.stderr()}"
        assert code in (0, 1, 128 + signal.SIGKILL), say
        assert code or run.stdout() == whole.stdout(), say  # success is only told of a whole run
        try:
            wait_for("the end of all", lambda ended=run: not ended.processes(), PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{say}\nleft: {describe(run.processes())}") from error
    assert hits >= ROUNDS // 5, f"only {hits} of {ROUNDS} moments found a {victim.__name__} to kill"
