"""Trap's end of the broker to session: requests with a callback each, and events. JSON over SOCK_SEQPACKET."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

MAX_MESSAGE = 256 << 10
MAX_FDS = 8

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
        data = json.dumps({"id": self._next, "op": op, **args}, separators=(",", ":")).encode()
        while True:
            try:
                socket.send_fds(self._sock, [data], list(fds))
                return
            except BlockingIOError:
                select.select([], [self._sock], [], 1.0)  # session reads all the time: it is a matter of microseconds
            except OSError:
                del self._waiting[self._next]
                done({}, 107, [])
                return

    def poll(self) -> None:
        """Take what has arrived, without waiting."""
        while self._open:
            try:
                data, fds, _flags, _addr = socket.recv_fds(self._sock, MAX_MESSAGE, MAX_FDS)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._open = False
                self._on_closed()
                return
            message = json.loads(data)
            if "ev" in message:
                self._on_event(message["ev"], message)
            else:
                done = self._waiting.pop(message["id"])
                done(message, message["errno"], list(fds))
