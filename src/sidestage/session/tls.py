"""Stolen connections whose TLS ended beside the target, encrypted anew for the local program."""

from __future__ import annotations

import errno
import select
import socket
from collections import deque
from collections.abc import Callable

from sidestage.protocol.messages import Buffer
from sidestage.session.watch import Watched, WatchedPump
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop
from sidestage.tls.engine import Engine

READ = 64 << 10  # bytes a read


class Handshake(QuietHandler):
    """With the local program, on a socket that is connected; `done(inside)` is told what came behind it, `failed()` that it didn't
    end well: then the socket is closed and the channel refused, so that the target has the connection."""

    def __init__(
        self, loop: Loop, link: Link, channel: int, sock: socket.socket, engine: Engine, seconds: float,
        done: Callable[[bytes], None], failed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._loop, self._link, self._channel, self._sock, self._engine = loop, link, channel, sock, engine
        self._done, self._failed = done, failed
        engine.start()
        self._out = engine.take()
        self._timer = loop.later(seconds, self._fail)
        loop.watch(sock.fileno(), select.EPOLLIN | select.EPOLLOUT, self._ready)
        link.register(channel, self)

    def _ready(self, _events: int) -> None:
        engine = self._engine
        try:
            if self._out:
                self._out = self._out[self._sock.send(self._out) :]
            data = self._sock.recv(READ)
        except BlockingIOError:
            self._loop.change(self._sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._out else 0))
            return
        except OSError:
            self._fail()
            return
        inside = engine.feed(data)
        if engine.ready:
            self._end()
            self._done(inside)
        elif engine.broken or not data:
            self._fail()
        else:
            self._out += engine.take()
            self._loop.change(self._sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._out else 0))

    def _fail(self) -> None:
        self._end()
        self._sock.close()
        self._failed()
        self._link.refuse(self._channel, errno.ECONNREFUSED)

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())

    def on_reset(self) -> None:
        self._end()
        self._sock.close()


class TlsPump(WatchedPump):
    """The channel carries what is inside. An end that the program hasn't said within TLS is passed on as one that it has: many
    programs just close, and their answers say how long they are."""

    def __init__(
        self, loop: Loop, link: Link, channel: int, sock: socket.socket, watched: Watched | None, engine: Engine, inside: bytes
    ) -> None:
        super().__init__(loop, link, channel, sock, watched)
        self._engine, self._inside = engine, inside  # what was read, and waits for credit
        self._owed: deque[list[int]] = deque()  # of what is queued for the socket: its bytes, and those of them inside
        self._told = False  # the channel has been told the program's end

    def start(self) -> None:
        super().start()
        self._queue(0)  # the handshake's last message
        self._came(b"")

    def _room(self) -> int:
        return 0 if self._inside else super()._room()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self.taken += len(data)
        self._reading = bool(data)
        self._came(self._engine.feed(data))

    def _came(self, inside: bytes) -> None:
        engine = self._engine
        self._queue(0)
        self._inside += inside
        self._give()
        if engine.broken:
            self._fail()
        elif engine.ended or not self._reading:
            self._reading = False
            self._give()

    def _give(self) -> None:
        """As much as there is credit for; behind it the end."""
        while self._inside and not self._ended:
            room = super()._room()
            if not room:
                return
            part, self._inside = self._inside[:room], self._inside[room:]
            self._pass(part)
        if not self._reading and not self._told and not self._ended:
            self._told = True
            self._link.send_eof(self._channel)
            self._end_if_done()

    def on_credit(self) -> None:
        self._give()
        super().on_credit()

    def _put(self, data: Buffer) -> None:
        self._engine.write(data)
        self._queue(len(data))
        if self._engine.broken:
            self._fail()

    def _queue(self, inside: int) -> None:
        data = self._engine.take()
        if data:
            self._owed.append([len(data), inside])
            super()._put(data)

    def _took(self, count: int) -> None:
        granted = 0
        while count:
            first = self._owed[0]
            part = min(count, first[0])
            first[0] -= part
            count -= part
            if not first[0]:
                granted += first[1]
                self._owed.popleft()
        if granted:
            super()._took(granted)

    def on_eof(self) -> None:
        self._engine.end()
        self._queue(0)
        super().on_eof()

    def _end_if_done(self) -> None:
        if self._told:
            super()._end_if_done()
