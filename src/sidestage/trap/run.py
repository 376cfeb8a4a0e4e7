"""The life of one program under the trap, from launch to exit status."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sidestage.trap import (
    bpf,
    kernel,
    launch,
    signals,
    supervisor,
    sys_accept,
    sys_bind,
    sys_change,
    sys_connect,
    sys_names,
    sys_open,
    sys_paths,
    sys_stat,
    sys_udp,
)  # fmt: skip
from sidestage.trap.broker import Broker
from sidestage.trap.ports import Begin, Policy
from sidestage.trap.supervisor import Supervisor, children, terminate

FAMILIES = (sys_connect, sys_accept, sys_bind, sys_names, sys_udp)
FILE_FAMILIES = (sys_open, sys_stat, sys_paths, sys_change)  # the last takes some over from sys_paths
SETTLE = 0.5  # seconds for processes that end together with the program
GRACE = 2.0  # seconds between SIGTERM and SIGKILL for what the program left running
LOST = 1  # exit status when the connection to the target broke


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    policy: Policy,
    broker: socket.socket,
    begin: Begin,
    say: Callable[[str], None],
    on_event: Callable[[str, dict[str, Any]], None] = lambda name, args: None,
    files: bool = True,
    skip: Collection[str] = (),
) -> int:
    """Run `argv` (its first is a path) until it ends; returns its exit status, 128+n for a signal.

    Programs named in `skip` are let through when the tree of processes comes to them.

    Raises launch.LaunchError when it can't be started.
    """
    sup = Supervisor(policy, begin, say, skip)
    lost: list[str] = []

    def lose(text: str) -> None:
        if not lost:
            lost.append(text)
            say(text)
            sup.stop()

    def event(name: str, args: dict[str, Any]) -> None:
        if name == "lost":
            lose(f"{args['text']}; the program is ended, as half of what it sees is gone")
        elif name == "ended":
            lose(args["text"])
        elif name == "say":
            sup.say(args["text"])
        else:
            sup.event(name, args)
            on_event(name, args)

    sup.broker = Broker(broker, event, lambda: event("lost", {"text": "the session process has ended unexpectedly"}))
    for family in (*FAMILIES, *(FILE_FAMILIES if files else ())):
        family.install(sup)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    program = bpf.assemble(bpf.program(sup.names))
    arriving = signals.Signals()
    try:
        child, listener = launch.start(argv, env, program, arriving.mask)
    except BaseException:
        arriving.close()
        raise
    status = [0]

    def reap() -> None:
        for number in arriving.for_program():
            terminate([child], number)
        while True:
            try:
                pid, how = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(how):
                if pid == child and signals.stop_as_a_job():
                    terminate([child], signal.SIGCONT)
            elif pid == child:
                status[0] = how
                sup.stop()

    sup.broker.request("ready", {"names": policy.names}, lambda *_: None, [listener])
    sup.watch(arriving.fd, reap)
    sup.watch(broker.fileno(), sup.broker.poll_one)
    _raise_limit()
    try:
        sup.run(listener)
        stopped = _end(sup)
    except BaseException:
        terminate(_ours(), signal.SIGKILL)
        raise
    finally:
        arriving.close()
    error = launch.exec_error(child)
    if error:
        missing = error in (2, 20)
        raise launch.LaunchError(f"{argv[0]}: {os.strerror(error).lower()}", 127 if missing else 126)
    if lost:
        return LOST
    if stopped:
        say(f"{stopped} that the program left running {'was' if stopped == 1 else 'were'} ended: cut off from the target")
    return os.waitstatus_to_exitcode(status[0]) if os.WIFEXITED(status[0]) else 128 + os.WTERMSIG(status[0])


def _end(sup: Supervisor) -> int:
    """End what still runs, as it would be cut off from the target; returns how many. What a SIGTERM handler asks is answered."""
    sup.linger(SETTLE, _ours)  # a pipeline's other end may be about to end by itself
    left = _ours()
    terminate(left)
    sup.linger(GRACE, _ours)
    deadline = time.monotonic() + GRACE
    while (rest := _ours()) and time.monotonic() < deadline:
        terminate(rest, signal.SIGKILL)
        time.sleep(0.01)
    return len(left)


def _ours() -> list[int]:
    return [pid for pid in children(os.getpid()) if supervisor.is_filtered(pid)]


def _raise_limit() -> None:
    """A pending connect holds two descriptors here; the program was started before, and keeps its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
