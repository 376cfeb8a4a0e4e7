"""A process for the target's half of TCP connections, with bulk links of its own.

A busy process waits for its next turn of a busy processor, and all that it does waits with it. So what is much, and is nothing but
moving bytes, is done by this fork, and the agent, which has little to do, answers at once. It ends with the agent.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import sys
from typing import Any, Dict, Optional

from sidestage.agent.files import Files
from sidestage.agent.outgoing import Outgoing
from sidestage.stream.link import Link
from sidestage.stream.loop import BULK_NICE, Loop

Args = Dict[str, Any]


class Lane:
    """`limits` are its links'."""

    def __init__(self, files: Files, limits: Dict[str, Any]) -> None:
        self._files, self._limits = files, limits
        self._sock: Optional[socket.socket] = None

    def give(self, fd: int) -> None:
        """The descriptor of a bulk link is the lane's from here on. Raises OSError: there can be no other process here."""
        sock = self._sock = self._sock or self._fork()
        try:
            socket.send_fds(sock, [b"."], [fd])
        except OSError:  # it was killed: there is another one for the next
            self._sock = None
            sock.close()
            raise
        os.close(fd)

    def _fork(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid:
            theirs.close()
            return ours
        try:
            os.nice(BULK_NICE)
            gc.freeze()  # or a socket of the agent's that is garbage here would one day close a number that is in use again
            keep = theirs.fileno()
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 16)
            _Links(theirs, self._files, self._limits).run()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)


class _Links:
    def __init__(self, sock: socket.socket, files: Files, limits: Dict[str, Any]) -> None:
        self._sock, self._limits = sock, limits
        self._loop = Loop()
        self._outgoing = Outgoing(self._loop, files)
        self._loop.watch(sock.fileno(), select.EPOLLIN, self._given)

    def run(self) -> None:
        self._loop.run()

    def _given(self, _events: int) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._sock, 1, 1)
        except OSError:
            data, fds = b"", []
        if not data:
            self._loop.stop()
            return
        for fd in fds:
            self._link(fd)

    def _link(self, fd: int) -> None:
        def opened(channel: int, kind: str, args: Args) -> None:
            if kind == "tcp":
                self._outgoing.opened(link, channel, kind, args)
            else:
                link.refuse(channel, errno.EINVAL)

        link = Link(
            self._loop, fd, fd, "agent", on_call=lambda call, *_: link.fail(call, errno.ENOSYS), on_open=opened,
            on_event=lambda *_: None, on_closed=lambda _reason: os.close(fd), **self._limits,
        )  # fmt: skip
