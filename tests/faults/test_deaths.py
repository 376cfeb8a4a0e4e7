"""Each part is killed or stopped while a program is busy: the program ends, the target notices nothing, nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.testkit.laptop import Laptop, Run
from tests.testkit.target import SERVICE, Target, target, wait_for

# Busy with all that sidestage does: a mirrored listener, a connection, a remote file held open, and a child and a grandchild,
# of which one makes no system call that would be trapped, and the other has left its parent's process group.
BUSY = """
import http.server, os, socket, subprocess, threading, time
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True)
held = open("/srv/big", "rb"); held.read(10)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
s = socket.create_connection(("10.77.0.20", 7000)); s.sendall(b"x"); s.recv(1)
print("busy", flush=True)
while True:
    s.sendall(b"ping"); s.recv(4); open("/srv/config.txt").read(); time.sleep(0.01)
"""
LIMITS = {"agent": {"heartbeat": 0.3, "silence": 1.5}}


def busy(here: Laptop, staging: Target, tmp_path: Path) -> Run:
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps(LIMITS))
    run = here.start(staging, [sys.executable, "-c", BUSY], ["-f", str(config)])
    wait_for("the start", lambda: "busy" in run.stdout() or run.process.poll() is not None, 30)
    assert run.process.poll() is None, run.stderr()
    return run


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("canary")
def test_agent_killed(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run = busy(here, staging, tmp_path)
    kill(run.agent())
    assert run.end() == 1
    lines = [line for line in run.stderr().splitlines() if "gone" in line]
    assert len(lines) == 1, run.stderr()
    assert "the agent beside the target is gone" in lines[0]
    assert "the program is ended" in lines[0]


@pytest.mark.usefixtures("canary")
def test_agent_stopped(here: Laptop, staging: Target, tmp_path: Path) -> None:
    """It says nothing any more, and nothing breaks: only silence tells."""
    run = busy(here, staging, tmp_path)
    os.kill(run.agent(), signal.SIGSTOP)
    assert run.end() == 1
    assert "no word for" in run.stderr()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_agent_that_steals(here: Laptop, staging: Target, tmp_path: Path, how: signal.Signals) -> None:
    """The port is the target's again, also when the agent only fell silent: it is killed, and the kernel removes its redirects."""
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps(LIMITS))
    run = here.start(staging, [sys.executable, "-c", BUSY], ["-f", str(config), "--steal"])
    url = f"http://{SERVICE}:8080/steal"

    def stolen() -> bool:
        assert run.process.poll() is None, run.stderr()
        return staging.client(url).out == ""  # the program answers with nothing

    wait_for("the theft", lambda: "busy" in run.stdout() and stolen(), 30)
    os.kill(run.agent(), how)
    assert run.end() == 1
    assert "the agent beside the target is gone" in run.stderr()
    assert staging.client(url).out == "staging /steal\n"


@pytest.mark.usefixtures("canary")
def test_session_stopped(here: Laptop, staging: Target, tmp_path: Path) -> None:
    """The agent ends by itself when the laptop falls silent, and takes its mirror along."""
    run = busy(here, staging, tmp_path)
    agent, session = run.agent(), run.session()
    os.kill(session, signal.SIGSTOP)
    wait_for("the agent's end", lambda: state(agent) in "ZX", 20)
    os.kill(session, signal.SIGCONT)
    assert run.end() == 1
    assert "the agent beside the target is gone" in run.stderr()


@pytest.mark.usefixtures("canary")
def test_trap_killed(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run = busy(here, staging, tmp_path)
    kill(run.process.pid)
    assert run.end() == 128 + signal.SIGKILL


@pytest.mark.usefixtures("canary")
def test_session_killed(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run = busy(here, staging, tmp_path)
    kill(run.session())
    assert run.end() == 1
    assert "the session process has ended unexpectedly" in run.stderr()


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("first", ["trap", "session"])
def test_trap_and_session_killed(here: Laptop, staging: Target, tmp_path: Path, first: str) -> None:
    run = busy(here, staging, tmp_path)
    both = [run.process.pid, run.session()]
    kill(*(both if first == "trap" else reversed(both)))
    assert run.end() == 128 + signal.SIGKILL


@pytest.mark.usefixtures("canary")
def test_program_killed(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run = busy(here, staging, tmp_path)
    (program,) = [pid for pid in run.processes() if state(pid) != "Z" and BUSY.encode() in argument(pid, 2)]
    kill(program)
    assert run.end() == 128 + signal.SIGKILL
    assert "3 that the program left running were ended" in run.stderr()


def test_the_program_may_end_in_its_own_way(here: Laptop, staging: Target, tmp_path: Path) -> None:
    """What the program does in its SIGTERM handler still works on this machine after the target is lost."""
    code = f"""
import os, signal, sys
def bye(*_): open({str(tmp_path / "bye")!r}, "w").write("saved"); os._exit(3)
signal.signal(signal.SIGTERM, bye); print("busy", flush=True)
while True: signal.pause()
"""
    run = here.start(staging, [sys.executable, "-c", code])
    wait_for("the start", lambda: "busy" in run.stdout(), 30)
    kill(run.agent())
    assert run.end() == 1
    assert (tmp_path / "bye").read_text() == "saved"


def test_target_ends(here: Laptop, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with target(tmp_path / "own") as staging:
        run = busy(here, staging, tmp_path)
        kill(staging.pid)
        assert run.end() == 1
    assert f"the target, process {staging.pid}, has ended; the program is ended" in run.stderr()


@pytest.mark.parametrize("status", [0, 7])
def test_background_children(here: Laptop, staging: Target, status: int) -> None:
    """They would be cut off from the target, so they end with the program; its own status is told."""
    run = here.start(staging, ["sh", "-c", f"sleep 1000 & setsid sleep 1000 & trap '' TERM; (sleep 1000) & exit {status}"])
    assert run.end() == status
    assert "that the program left running were ended" in run.stderr()


def test_children_that_end_by_themselves_are_no_news(here: Laptop, staging: Target) -> None:
    run = here.start(staging, ["bash", "-c", "exec 3> >(cat >/dev/null); echo >&3; sleep 1; exit 0"])
    assert run.end() == 0
    assert "left running" not in run.stderr()


def hanging(here: Laptop, staging: Target, tmp_path: Path) -> Run:
    """A run whose agent's interpreter never says READY, and ends with its input as a real one does."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    python.chmod(0o755)
    config = tmp_path / "sidestage.json"
    config.write_text(json.dumps({"agent": {"python": str(python)}}))
    run = here.start(staging, ["touch", str(tmp_path / "ran")], ["-f", str(config)])
    wait_for("the interpreter that hangs", lambda: cats(run))
    return run


def cats(run: Run) -> list[int]:
    return [pid for pid in run.processes() if argument(pid, 0) == b"cat"]


def test_a_start_without_its_agent(here: Laptop, staging: Target, tmp_path: Path) -> None:
    run = hanging(here, staging, tmp_path)
    kill(*cats(run))
    assert run.end(10) == 1
    assert "the agent could not start" in run.stderr()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_start_is_interrupted(here: Laptop, staging: Target, tmp_path: Path, number: signal.Signals) -> None:
    """Within moments, not when the start's time-outs end it."""
    run = hanging(here, staging, tmp_path)
    started = time.monotonic()
    os.kill(run.process.pid, number)
    assert run.end(10) == 128 + number
    wait_for("the end of all", lambda: not run.processes(), 7)
    assert time.monotonic() - started < 8, "it waited for a time-out"
    assert not (tmp_path / "ran").exists()


def state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def argument(pid: int, at: int) -> bytes:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[at]
    return b""


