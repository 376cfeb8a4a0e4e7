"""When the supervisor died: end every task that it supervised, so that nothing runs on half connected.

The kernel keeps a notification listener alive as long as a task uses its filter. We hold a duplicate of it: whoever still
makes a trapped call is told to us with its pid, and POLLHUP says that nobody is left (seccomp_unotify(2)). The others are
found by the session's name in their environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time

from sidestage.session import MARK
from sidestage.trap import kernel

PATIENCE = 5.0  # seconds until we give up on what can't be killed (state D)


def reap(listener: int, session: str) -> None:
    """Kill all tasks of the filter behind `listener`; returns when none is left or patience ends.

    Without a listener (-1) trap died before it told us of one: only the environment can tell.
    """
    if listener < 0:
        for pid in marked(session):
            _kill(pid)
        return
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ready = poll.poll(0)
        if ready and ready[0][1] & select.POLLHUP:
            return
        if ready and ready[0][1] & select.POLLIN:
            with contextlib.suppress(OSError):
                notification = kernel.receive(listener)
                if notification:
                    _kill(kernel.tgid(notification[1]))
            continue
        for pid in marked(session):
            _kill(pid)
        poll.poll(50)


def in_use(listener: int) -> bool:
    """Does any task still run under its filter? If not, it is closed."""
    poll = select.poll()
    poll.register(listener, 0)
    if poll.poll(0):
        os.close(listener)
        return False
    return True


def remove(folder: str) -> None:
    """What trap made for a container's engine, if it did."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def marked(session: str) -> list[int]:
    """Processes whose initial environment carries the session's name, ourselves left out."""
    mark = f"{MARK}={session}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as environ:
                if mark in environ.read().split(b"\0"):
                    found.append(int(name))
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
