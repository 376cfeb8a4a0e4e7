"""The ends of an intercepted connection: sockets (client, target) and channels (channel_leg.py), alike to their owner.

A leg queues what it is given until the other side takes it, and tells its owner when the queue is long: nothing is ever
read without somebody to take it. Each direction ends by half-close; a broken leg says reset, once.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections import deque
from typing import Any, Callable, Deque, Optional, Protocol, Tuple

from sidestage.protocol.messages import Buffer
from sidestage.stream.loop import Loop, Timer

READ = 64 << 10  # bytes a read
HIGH, LOW = 256 << 10, 64 << 10  # bytes queued: when the owner is told to stop, and to go on
CONNECT_TIMEOUT = 5.0  # seconds; the target is on this very machine
_nothing: Callable[[], None] = lambda: None  # noqa: E731
RST, NO_RST = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # struct linger: close() resets


class Owner(Protocol):
    def on_data(self, leg: "Leg", data: Buffer) -> None: ...
    def on_eof(self, leg: "Leg") -> None: ...
    def on_reset(self, leg: "Leg") -> None: ...
    def on_failed(self, leg: "Leg") -> None: ...
    def on_open(self, leg: "Leg") -> None: ...
    def on_blocked(self, leg: "Leg") -> None: ...
    def on_ready(self, leg: "Leg") -> None: ...


class Nobody:
    """Hears all and does nothing."""

    def on_data(self, leg: "Leg", data: Buffer) -> None:
        return

    def on_eof(self, leg: "Leg") -> None:
        return

    on_reset = on_failed = on_open = on_blocked = on_ready = on_eof


class Leg:
    """`number` is the owner's name for it. After on_failed, on_reset, reset() or both directions' ends it is `over`."""

    def __init__(self, loop: Loop, owner: Any, number: int) -> None:
        self._loop = loop
        self.owner: Owner = owner
        self.number = number
        self._timer = Timer(_nothing)
        self.over = self.open = self.blocked = False
        self.eof_in = self.eof_out = False  # seen from the other side; ordered by the owner
        self.cut_in = self.cut_out = False  # such an end without the word of TLS that it is one: seen, and to be passed on
        self._reading = True
        self._out: Deque[Buffer] = deque()
        self._queued = 0

    def start(self) -> None:
        """It is connected."""
        raise NotImplementedError

    def send(self, data: Buffer) -> None:
        raise NotImplementedError

    def eof(self) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def read(self, wanted: bool) -> None:
        raise NotImplementedError

    def linger(self, seconds: float) -> None:
        """Reset it if its other side is not done in time."""
        if not self.over:
            self._timer.cancel()
            self._timer = self._loop.later(seconds, self.reset)

    def dismiss(self, seconds: float) -> None:
        """Close it after what is queued; nothing more of it is heard."""
        self.owner = Nobody()
        self.eof()
        self.read(True)
        self.linger(seconds)

    def _mark(self) -> None:
        if self.blocked:
            if self._queued <= LOW:
                self.blocked = False
                self.owner.on_ready(self)
        elif self._queued >= HIGH:
            self.blocked = True
            self.owner.on_blocked(self)


class SocketLeg(Leg):
    def __init__(self, loop: Loop, owner: Any, number: int, sock: socket.socket) -> None:
        super().__init__(loop, owner, number)
        self.sock = sock
        self._fd = sock.fileno()
        self._events = select.EPOLLIN
        self._shut = False
        self.ended: Optional[Callable[[], None]] = None
        self.heard = time.monotonic()  # when bytes came last

    def start(self) -> None:
        self.open = True
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events = self._wanted()
        self._loop.watch(self._fd, self._events, self._ready)

    def connect(self, address: Tuple[Any, ...]) -> None:
        """on_open or on_failed comes later, never from within."""
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._loop.soon(self._fail)
            self._events = 0
        else:
            self._events = select.EPOLLOUT
        self._loop.watch(self._fd, self._events, self._connected)
        self._timer = self._loop.later(CONNECT_TIMEOUT, self._fail)

    def _connected(self, _events: int) -> None:
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail()
            return
        self._timer.cancel()
        self._loop.unwatch(self._fd)
        self.start()
        self.owner.on_open(self)
        self._write()

    def _fail(self) -> None:
        if not self.over and not self.open:
            self._close()
            self.owner.on_failed(self)

    def _wanted(self) -> int:
        return (select.EPOLLIN if self._reading and not self.eof_in else 0) | (select.EPOLLOUT if self._out else 0)

    def _watch(self) -> None:
        if not self.over and self.open:
            wanted = self._wanted()
            if wanted != self._events:
                self._events = wanted
                self._loop.change(self._fd, wanted)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._write()
        if self.over:
            return
        if events & ~select.EPOLLOUT:
            if self._events & select.EPOLLIN:
                self._read()
            elif events & (select.EPOLLERR | select.EPOLLHUP):
                self._broken()

    def _read(self) -> None:
        try:
            data = self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        if data:
            self.heard = time.monotonic()
            self.owner.on_data(self, data)
            return
        self.eof_in = True
        self._watch()
        self.owner.on_eof(self)
        self._end_if_done()

    def send(self, data: Buffer) -> None:
        if self.over or self.eof_out:
            return
        if self.open and not self._out:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._loop.soon(self._broken)  # the owner is in the middle of its orders
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._out.append(data)
        self._queued += len(data)
        self._watch()
        self._mark()

    def _write(self) -> None:
        out = self._out
        try:
            while out:
                sent = self.sock.send(out[0])
                self._queued -= sent
                if sent < len(out[0]):
                    out[0] = memoryview(out[0])[sent:]
                    break
                out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._broken()
            return
        if self.blocked:
            self._mark()
        if self.eof_out and not out:
            self._shutdown()
        self._watch()

    def eof(self) -> None:
        if not self.over and not self.eof_out:
            self.eof_out = True
            if self.open and not self._out:
                self._shutdown()

    def _shutdown(self) -> None:
        if not self._shut and not self.over:
            self._shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._loop.soon(self._broken)
                return
            self._end_if_done()

    def read(self, wanted: bool) -> None:
        self._reading = wanted
        self._watch()

    def reset(self) -> None:
        if not self.over:
            self._linger(RST)
            self._close()

    def _broken(self) -> None:
        if not self.over:
            self.reset()
            self.owner.on_reset(self)

    def _end_if_done(self) -> None:
        if self.eof_in and self._shut:
            self._linger(NO_RST)
            self._close()

    def _linger(self, how: bytes) -> None:
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
        except OSError:
            pass  # gone already

    def _close(self) -> None:
        if not self.over:
            self.over = True
            self._timer.cancel()
            self._loop.unwatch(self._fd)
            self.sock.close()
            self._out.clear()
            if self.ended is not None:
                self.ended()
