"""The main process of an agent's container, as a real process: how long it stays, and what its agents hear."""

from __future__ import annotations

import fcntl
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from sidestage.agent import main, payload

Guard = Callable[[int, int], "tuple[subprocess.Popen[bytes], str]"]


@pytest.fixture
def guard() -> Iterator[Guard]:
    started: list[subprocess.Popen[bytes]] = []

    def start(first: int, another: int) -> tuple[subprocess.Popen[bytes], str]:
        name = f"guard-{uuid.uuid4().hex}"
        started.append(subprocess.Popen(payload.guard(sys.executable, name, first, another)))
        return started[-1], name

    yield start
    for process in started:
        process.kill()
        process.wait()


def agent(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    deadline = time.monotonic() + 20
    while True:
        try:
            sock.connect("\0" + name)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return sock


def test_it_ends_with_its_last_agent(guard: Guard) -> None:
    process, name = guard(60, 0)
    one, two = agent(name), agent(name)
    one.close()
    time.sleep(0.2)
    assert process.poll() is None
    two.close()
    assert process.wait(20) == 0


def test_an_agent_that_is_faster_waits_for_it() -> None:
    name = f"guard-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as late:
        late.bind("\0" + name)
        timer = threading.Timer(0.3, late.listen)
        timer.start()
        main._guard(name).close()
        timer.join()
    code = "from sidestage.agent import main; main.GUARD_SECONDS = 0.1; main._guard('nobody')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "main process is gone" in done.stderr) == (main.NO_GUARD, True), done


def test_it_ends_when_no_agent_comes(guard: Guard) -> None:
    assert guard(1, 60)[0].wait(20) == 0


def test_what_is_shared_waits_for_another_agent(guard: Guard) -> None:
    process, name = guard(60, 60)
    agent(name).close()
    time.sleep(0.3)
    assert process.poll() is None
    with agent(name) as one:
        one.sendall(b"x")
        while fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4)) != bytes(4):  # until the guard has read it, and knows us
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert one.recv(1) == b"", "the agent hears that the pod is being deleted"
        assert process.poll() is None, "and has time to undo what it did"
    assert process.wait(20) == 0, "then it waits for nobody"


def test_what_is_shared_does_not_wait_for_ever(guard: Guard) -> None:
    process, name = guard(60, 1)
    agent(name).close()
    assert process.wait(20) == 0
