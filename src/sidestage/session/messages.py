"""Messages between processes of a session, each with the descriptors that belong to it, over a SOCK_SEQPACKET.

Nobody waits for a reader: what the socket doesn't take is queued.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sidestage.stream.loop import Loop
from sidestage.trap.broker import MAX_MESSAGE, decode, descriptors, encode

MAX_FDS = 8
MAX_QUEUED = 65536  # that the reader hasn't read; it reads all the time, so more means that it hangs

_ROOM = socket.CMSG_SPACE(MAX_FDS * 4)

Args = dict[str, Any]


class Messages:
    """`on_message(message, fds)`, where `fds` is None when the kernel left some out; `on_closed()` when the other end is gone."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_message: Callable[[Args, list[int] | None], None], on_closed: Callable[[], None]
    ) -> None:
        self._loop, self._sock, self._on_message, self._on_closed = loop, sock, on_message, on_closed
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        sock.setblocking(False)
        loop.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def send(self, message: Args, fds: Sequence[int] = ()) -> None:
        """`fds` are duplicated into the message and closed here. When the other end is gone, nothing happens."""
        data = encode(message)
        if self._queue or not self._try(data, fds):
            if len(self._queue) >= MAX_QUEUED:
                raise RuntimeError("messages are not read")
            self._queue.append((data, fds))
            if len(self._queue) == 1:
                self._loop.change(self._sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def close(self) -> None:
        """What is queued is not sent."""
        if self._sock.fileno() < 0:
            return
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        while self._queue:
            _close(self._queue.popleft()[1])

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._drain()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        try:
            data, controls, flags, _addr = self._sock.recvmsg(MAX_MESSAGE, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, controls, flags = b"", [], 0
        if not data:
            self.close()
            self._on_closed()
            return
        fds = descriptors(controls) if controls else []
        if flags & socket.MSG_CTRUNC:  # we are out of descriptors, and the kernel left some out (unix(7))
            _close(fds)
            self._on_message(decode(data), None)
        else:
            self._on_message(decode(data), fds)

    def _drain(self) -> None:
        while self._queue and self._try(*self._queue[0]):
            self._queue.popleft()
        if not self._queue:
            self._loop.change(self._sock.fileno(), select.EPOLLIN)

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        """True when the message is gone, be it to its reader or because that is gone."""
        try:
            if fds:
                socket.send_fds(self._sock, [data], list(fds))
            else:
                self._sock.send(data)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the reader is gone; the read side says so
        _close(fds)
        return True


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
