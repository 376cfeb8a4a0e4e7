"""The last one standing: a process that only waits, and ends the program's tasks when both trap and session were killed.

Trap watches session and session watches trap, so one of them is enough for one death. For two, session forks this guard when it
has the listener; it sleeps in poll(2), and session's orderly end takes it along.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from sidestage.session import reaper
from sidestage.trap import kernel


def start(trap: int, listener: int, session: str, folder: str = "") -> tuple[int, int]:
    """(the guard's pid, the descriptor that tells it by its end that we are gone). `trap` is the pid of our parent."""
    pidfd = os.pidfd_open(trap)
    read, write = os.pipe()  # not inheritable, so no agent keeps the guard from its work
    pid = os.fork()
    if not pid:
        try:
            _watch(read, pidfd, listener, session, folder)
        finally:
            os._exit(0)
    os.close(read)
    os.close(pidfd)
    return pid, write


def stop(pid: int, write: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(write)


def _watch(ours: int, pidfd: int, listener: int, session: str, folder: str) -> None:
    """`ours` hangs up when session ends, `pidfd` is readable when trap ends. All else is closed: we must keep nothing alive."""
    kernel.close_all_but({0, 1, 2, ours, pidfd, listener} - {-1})
    for fd in (ours, pidfd):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
    reaper.reap(listener, session)
    reaper.remove(folder)
