"""The session's end of the broker: requests from trap, answers, and events; the table is in ARCHITECTURE.md."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sidestage.protocol.errors import ProtocolError
from sidestage.stream.loop import Loop
from sidestage.trap.broker import MAX_MESSAGE, decode, descriptors, encode

MAX_FDS = 8
MAX_QUEUED = 65536  # answers that trap hasn't read; it reads all the time, so more means that it hangs

_ROOM = socket.CMSG_SPACE(MAX_FDS * 4)

Args = dict[str, Any]
Reply = Callable[..., None]  # reply(errno=0, fds=(), **result)
Handler = Callable[[Args, list[int], Reply], None]


class Told(Protocol):
    """Whom a part of the session serves and tells: trap, or who runs a session without a program (bare.py)."""

    def on(self, op: str, handler: Handler) -> None: ...
    def event(self, name: str, /, fds: Sequence[int] = (), **args: Any) -> None: ...


class BrokerServer:
    def __init__(self, loop: Loop, sock: socket.socket, on_closed: Callable[[], None]) -> None:
        self._loop, self._sock, self._on_closed = loop, sock, on_closed
        self._handlers: dict[str, Handler] = {}
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        sock.setblocking(False)
        loop.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def on(self, op: str, handler: Handler) -> None:
        self._handlers[op] = handler

    def event(self, name: str, /, fds: Sequence[int] = (), **args: Any) -> None:
        """Tell trap; `fds` are duplicated into the message and closed here."""
        self._send({"ev": name, **args}, fds)

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
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._on_closed()
            return
        message = decode(data)
        fds = descriptors(controls) if controls else []
        reply = self._replier(message["id"])
        if flags & socket.MSG_CTRUNC:  # we are out of descriptors, and the kernel left some out (unix(7))
            for fd in fds:
                os.close(fd)
            reply(errno.EMFILE)
            return
        try:
            self._handlers[message["op"]](message, fds, reply)
        except OSError as error:
            reply(error.errno or errno.EIO)
        except ProtocolError:  # a limit of the link: this call fails, and the session goes on
            reply(errno.EAGAIN)

    def _replier(self, request: int) -> Reply:
        answered = False

        def reply(errno: int = 0, fds: Sequence[int] = (), **result: Any) -> None:
            nonlocal answered
            if request and not answered:  # 0: trap told, and asked nothing
                answered = True
                self._send({"id": request, "errno": errno, **result}, fds)

        return reply

    def _send(self, message: Args, fds: Sequence[int]) -> None:
        data = encode(message)
        if self._queue or not self._try(data, fds):
            if len(self._queue) >= MAX_QUEUED:
                raise RuntimeError("the supervisor does not read its answers")
            self._queue.append((data, fds))
            if len(self._queue) == 1:
                self._loop.change(self._sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _drain(self) -> None:
        while self._queue and self._try(*self._queue[0]):
            self._queue.popleft()
        if not self._queue:
            self._loop.change(self._sock.fileno(), select.EPOLLIN)

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        """True when the message is gone, be it to trap or because trap is gone."""
        try:
            if fds:
                socket.send_fds(self._sock, [data], list(fds))
            else:
                self._sock.send(data)
        except BlockingIOError:
            return False
        except OSError:
            pass  # trap is gone; the read side says so
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        return True
