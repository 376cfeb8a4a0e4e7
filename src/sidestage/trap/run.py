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
    engine,
    kernel,
    launch,
    signals,
    supervisor,
    sys_accept,
    sys_bind,
    sys_change,
    sys_connect,
    sys_exec,
    sys_names,
    sys_open,
    sys_paths,
    sys_stat,
    sys_udp,
    sys_watch,
)  # fmt: skip
from sidestage.trap.broker import Broker
from sidestage.trap.ports import Begin, Box, Policy
from sidestage.trap.supervisor import Supervisor, children, terminate

FAMILIES = (sys_connect, sys_accept, sys_bind, sys_names, sys_udp)
FILE_FAMILIES = (sys_open, sys_stat, sys_paths, sys_watch, sys_exec, sys_change)  # the last takes some over from sys_paths
WALL = 0x40000000  # also threads that we trace (wait(2))
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
    box: Box | None = None,
) -> int:
    """Run `argv` (its first is a path) until it ends; returns its exit status, 128+n for a signal. With a `box`, `argv` is the
    command by which its engine starts it.

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
    arriving = signals.Signals()
    status: list[int] = []

    def reap() -> None:
        for number in arriving.for_program():
            terminate([child], number)
        while True:
            try:
                pid, how = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | WALL)
            except ChildProcessError:
                return
            if not pid:
                return
            traced = sup.changed(pid, how)
            if os.WIFSTOPPED(how):
                if not traced and pid == child and signals.stop_as_a_job():
                    terminate([child], signal.SIGCONT)
            elif pid == child:
                status.append(how)
                sup.stop()

    def ready(listener: int, maker: socket.socket | None = None) -> None:
        sup.attach(listener)
        network = {"network": list(sup.network.ident), "pid": sup.network.pid} if maker else {}
        fds = [listener, *([maker.fileno()] if maker else [])]
        sup.broker.request("ready", {"names": policy.names, **network}, lambda *_: None, fds)

    boxed = engine.Engine(sup, box, ready) if box else None
    try:
        if boxed:
            boxed.start(argv, env, arriving.mask)
            child = boxed.pid
        else:
            child, listener = launch.start(argv, env, bpf.assemble(bpf.program(sup.names)), arriving.mask)
            ready(listener)
    except BaseException:
        arriving.close()
        raise
    tasks = boxed.tasks if boxed else _ours
    sup.watch(arriving.fd, reap)
    sup.watch(broker.fileno(), sup.broker.poll_one)
    _raise_limit()

    def ended(seconds: float) -> bool:
        sup.linger(seconds, lambda: not status)
        return bool(status)

    try:
        sup.run()
        stopped = _end(sup, tasks)
        if boxed:
            boxed.finish(ended)
    except BaseException:
        terminate(tasks(), signal.SIGKILL)
        raise
    finally:
        arriving.close()
    if boxed:
        boxed.check(done=status[:1] == [0])
    elif error := launch.exec_error(child):
        missing = error in (2, 20)
        raise launch.LaunchError(f"{argv[0]}: {os.strerror(error).lower()}", 127 if missing else 126)
    if lost:
        return LOST
    if stopped:
        say(f"{stopped} that the program left running {'was' if stopped == 1 else 'were'} ended: cut off from the target")
    how = status[0] if status else 0
    return os.waitstatus_to_exitcode(how) if os.WIFEXITED(how) else 128 + os.WTERMSIG(how)


def _end(sup: Supervisor, tasks: Callable[[], list[int]]) -> int:
    """End what still runs, as it would be cut off from the target; returns how many. What a SIGTERM handler asks is answered."""
    sup.linger(SETTLE, tasks)  # a pipeline's other end may be about to end by itself
    left = tasks()
    terminate(left)
    sup.linger(GRACE, tasks)
    deadline = time.monotonic() + GRACE
    while (rest := tasks()) and time.monotonic() < deadline:
        terminate(rest, signal.SIGKILL)
        time.sleep(0.01)
    return len(left)


def _ours() -> list[int]:
    return [pid for pid in children(os.getpid()) if supervisor.is_filtered(pid)]


def _raise_limit() -> None:
    """A pending connect holds two descriptors here; the program was started before, and keeps its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
