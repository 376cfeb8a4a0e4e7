"""Targets on this machine: a process in its own namespaces, or a container of podman or docker.

Resolving ends in a process id; the agent is a child process whose standard input and output are the byte stream. AgentProcess is
a `plug.Plug`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidestage.agent import payload
from sidestage.targets.spec import TargetError, TargetSpec

SYNC_TIMEOUT = 20.0  # seconds for a Python to start and unpack the payload, generous for a loaded machine
INSPECT_TIMEOUT = 20.0
NO_PERMISSION, NO_PROCESS = 96, 97  # agent/main.py's exit codes for these causes


@dataclass(slots=True)
class AgentProcess:
    """A started agent: `fd` is its duplex stream (a socket), `process` is for reaping."""

    process: subprocess.Popen[bytes]
    fd: int
    pid: int | None  # of the target
    max_data: int = 256 << 10  # a local stream has no slow link for small frames to overtake on
    news: int = -1
    drains: bool = False  # it may have clients of the target to see off, and then ends by itself

    def wait_ready(self, say: Callable[[str, str], None] = lambda *_: None) -> int:
        """Until the agent has gone to its target; raises TargetError with the agent's own words."""
        try:
            payload.read_sync(self.fd, SYNC_TIMEOUT)
        except (OSError, EOFError, TimeoutError) as error:
            raise _failed(self, error) from error
        stream, self.fd = self.fd, -1
        return stream

    def read_news(self) -> tuple[dict[str, Any], list[int]]:
        return {}, []

    def send(self, op: str, **args: Any) -> None:
        raise NotImplementedError(f"nobody is here who could {op}")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        if self.drains:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()


def resolve(spec: TargetSpec) -> int | None:
    """The pid that stands for the target (None: targetless); raises TargetError."""
    if spec.kind == "targetless":
        return None
    if spec.kind == "process":
        if not spec.name.isdecimal():
            raise TargetError(f"{spec.name!r} is not a process id", "write process/PID; `pgrep NAME` finds the PID")
        pid = int(spec.name)
        if not os.path.exists(f"/proc/{pid}"):
            raise TargetError(f"there is no process {pid}", "look the PID up again, e.g. with pgrep")
        return pid
    return _container_pid(spec.name)


def _container_pid(name: str) -> int:
    import json
    import shutil

    engines = [engine for engine in ("podman", "docker") if shutil.which(engine)]
    if not engines:
        raise TargetError("neither podman nor docker is on PATH", "install one, or use process/PID")
    said: list[str] = []
    for engine in engines:
        try:
            done = subprocess.run(
                [engine, "inspect", "--type", "container", "--format", "{{json .State}}", name],
                capture_output=True, text=True, timeout=INSPECT_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            said.append(f"{engine}: no answer within {INSPECT_TIMEOUT:.0f} s")
            continue
        if done.returncode:
            said.append(f"{engine}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
            continue
        state = json.loads(done.stdout)
        if not state.get("Running") or not state.get("Pid"):
            raise TargetError(f"container {name!r} of {engine} is not running", f"start it: {engine} start {name}")
        return int(state["Pid"])
    raise TargetError(f"no container {name!r} ({'; '.join(said)})", f"see `{engines[0]} ps`")


def start_agent(
    pid: int | None, session: str, python: str | None = None, limits: Mapping[str, float] | None = None
) -> AgentProcess:
    """Start the agent beside `pid`; `wait_ready` comes before its stream is used. Raises TargetError.

    `limits` are the agent's `heartbeat` and `silence`, in seconds.
    """
    python = python or sys.executable
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        # One bulk read should find a whole frame; the kernel clamps this to its limits.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    try:
        process = subprocess.Popen(
            payload.command(python, {"pid": pid, "session": session, **(limits or {})}),
            stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE, start_new_session=True, cwd="/",
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise TargetError(
            f"can't start the agent with {python}: {error.strerror}", "correct agent.python in the configuration"
        ) from error
    finally:
        theirs.close()
    agent = AgentProcess(process, ours.detach(), pid)
    try:
        _write(agent.fd, payload.preamble(python))
    except OSError as error:
        raise _failed(agent, error) from error
    return agent


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _failed(agent: AgentProcess, error: Exception) -> TargetError:
    os.close(agent.fd)
    process, pid = agent.process, agent.pid
    try:
        code = process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    said = process.stderr.read().decode(errors="replace").strip().splitlines() if process.stderr else []
    cause = said[-1] if said else f"it ended with {code} ({error})"
    if code == NO_PERMISSION:
        cure = f"run as the owner of process {pid}, or as root"
    elif code == NO_PROCESS:
        cure = "look the PID up again, e.g. with pgrep"
    else:
        cure = "run again with --debug; `sidestage doctor` says what this machine can do"
    return TargetError(f"the agent could not start: {cause}", cure)
