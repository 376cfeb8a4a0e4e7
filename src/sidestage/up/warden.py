"""A process that outlives `up` by a few seconds: were that killed, its services would get a SIGTERM, which a program may ignore.

It holds a descriptor of each service's process (pidfd_open(2)), so it can't hit another that has the number later.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time

GRACE = 10.0  # seconds from the death of `up` to SIGKILL
MAX_MESSAGE = 16


class Warden:
    def __init__(self) -> None:
        """Fork it, from a process of one thread; it ends with the last service after we have."""
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            return
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            keep = os.dup2(theirs.detach(), 3)
            os.closerange(keep + 1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16))
            _watch(socket.socket(fileno=keep))
        finally:
            os._exit(0)

    def add(self, pidfd: int) -> None:
        with contextlib.suppress(OSError):  # it was killed; nothing else depends on it
            socket.send_fds(self._sock, [b"x"], [pidfd])

    def close(self) -> None:
        self._sock.close()


def _watch(sock: socket.socket) -> None:
    living: list[int] = []
    while True:
        data, fds, _flags, _address = socket.recv_fds(sock, MAX_MESSAGE, 1)
        living = _alive(living + list(fds), 0.0)
        if not data:
            break
    ends = time.monotonic() + GRACE
    while living and time.monotonic() < ends:
        living = _alive(living, ends - time.monotonic())
    for fd in living:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)


def _alive(pidfds: list[int], seconds: float) -> list[int]:
    """Those that have not ended, once one has or the time is over."""
    poll = select.poll()
    for fd in pidfds:
        poll.register(fd, select.POLLIN)
    ended = {fd for fd, _ in poll.poll(seconds * 1000)}
    for fd in ended:
        os.close(fd)
    return [fd for fd in pidfds if fd not in ended]
