"""Trap's end of the broker to session: requests with a callback each, and events, over SOCK_SEQPACKET.

Both ends are one program, forked from one process, and nobody else has the socket: so messages are marshalled, which takes a
fifth of the time of JSON.
"""

from __future__ import annotations

import array
import errno
import marshal
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

MAX_MESSAGE = 96 << 10  # two paths, or a path and an extended attribute
MAX_FDS = 8

encode, decode = marshal.dumps, marshal.loads
_ROOM = socket.CMSG_SPACE(MAX_FDS * 4)

Args = dict[str, Any]
Done = Callable[[Args, int, list[int]], None]


class Broker:
    def __init__(self, sock: socket.socket, on_event: Callable[[str, Args], None], on_closed: Callable[[], None]) -> None:
        self._sock, self._on_event, self._on_closed = sock, on_event, on_closed
        sock.setblocking(False)  # recv_fds ignores its flags argument in Python 3.11
        self._waiting: dict[int, Done] = {}
        self._next = 0
        self._open = True

    def fileno(self) -> int:
        return self._sock.fileno()

    def request(self, op: str, args: Args, done: Done, fds: Sequence[int] = ()) -> None:
        """Ask session; `done(answer, errno, fds)` comes once, with ENOTCONN when session is gone. `fds` stay ours."""
        self._next += 1
        self._waiting[self._next] = done
        if not self._send({"id": self._next, "op": op, **args}, fds):
            del self._waiting[self._next]
            done({}, errno.ENOTCONN, [])

    def tell(self, op: str, args: Args, fds: Sequence[int] = ()) -> None:
        """The same without an answer."""
        self._send({"id": 0, "op": op, **args}, fds)

    def _send(self, message: Args, fds: Sequence[int]) -> bool:
        data = encode(message)
        while True:
            try:
                if fds:
                    socket.send_fds(self._sock, [data], list(fds))
                else:
                    self._sock.send(data)
                return True
            except BlockingIOError:
                select.select([], [self._sock], [], 1.0)  # session reads all the time: it is a matter of microseconds
            except OSError:
                return False

    def poll(self) -> None:
        """Take what has arrived, without waiting."""
        while self._open and self.poll_one():
            continue

    def poll_one(self) -> bool:
        """Take one message; False when there is none."""
        try:
            data, controls, flags, _addr = self._sock.recvmsg(MAX_MESSAGE, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            data, controls, flags = b"", [], 0
        if not data:
            self._open = False
            self._on_closed()
            return False
        message = decode(data)
        if "ev" in message:
            self._on_event(message["ev"], message)
        else:
            done = self._waiting.pop(message["id"])
            fds = descriptors(controls) if controls else []
            if flags & socket.MSG_CTRUNC:  # we are out of descriptors, and the kernel left some out (unix(7))
                for fd in fds:
                    os.close(fd)
                done({}, errno.EMFILE, [])
            else:
                done(message, message["errno"], fds)
        return True


def descriptors(controls: list[tuple[int, int, bytes]]) -> list[int]:
    """What SCM_RIGHTS messages brought (unix(7))."""
    fds = array.array("i")
    for level, kind, data in controls:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % 4])
    return list(fds)
