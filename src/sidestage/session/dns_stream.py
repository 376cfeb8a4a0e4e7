"""A connection to a nameserver, message by message (RFC 7766): some are for the target's, some are this machine's matter.

It is there for long answers and for programs that speak TCP only. Without filters by name such a connection is any other.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from sidestage.protocol.messages import Buffer
from sidestage.session.here import Here
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop
from sidestage.views.names import server_failure

MAX_WAITING = 1 << 20  # bytes of answers that the program has not read; until then it is not read from
READ = 65536


class DnsStream:
    """`channel` 0: the target's nameserver could not be reached. `heard(message)` is told each answer."""

    def __init__(
        self, loop: Loop, link: Link, channel: int, end: socket.socket, server: str, here: Here | None,
        heard: Callable[[Buffer], None], on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        self._loop, self._link, self._channel, self._end, self._server = loop, link, channel, end, server
        self._here, self._heard, self._on_end = here, heard, on_end
        self._queries, self._answers = Messages(), Messages()
        self._out, self._there = bytearray(), bytearray()
        self._closed = self._eof = self._over = False
        self._asking = 0  # of this machine
        self._events = select.EPOLLIN
        end.setblocking(False)
        loop.watch(end.fileno(), self._events, self._ready)
        if channel:
            link.register(channel, self)

    # -- the program's side --

    def _ready(self, events: int) -> None:
        if self._out:
            self._flush()
        if events & ~select.EPOLLOUT and not self._closed and self._events & select.EPOLLIN:
            self._read()
        self._watch()

    def _read(self) -> None:
        try:
            data = self._end.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self._close(reset=True)
            return
        if not data:
            self._eof = True
            if self._channel and not self._there:
                self._link.send_eof(self._channel)
        for query in self._queries.feed(data):
            if self._here and self._here.takes(query):
                self._asking += 1
                self._here.ask(query, self._server, self._answered_here, tcp=True)
            elif self._channel:
                self._there += framed(query)
            else:
                self._answer(server_failure(query))
        self.on_credit()

    def _answered_here(self, message: bytes) -> None:
        self._asking -= 1
        self._answer(message)

    def _answer(self, message: Buffer) -> None:
        if message and not self._closed:
            self._heard(message)
            self._out += framed(message)
            self._flush()
        self._watch()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._end.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._close(reset=True)

    def _watch(self) -> None:
        if (self._over or (self._eof and not self._channel)) and not self._asking and not self._out:
            self._close()
        if self._closed:
            return
        full = len(self._out) > MAX_WAITING or len(self._there) > MAX_WAITING
        events = (0 if self._eof or full else select.EPOLLIN) | (select.EPOLLOUT if self._out else 0)
        if events != self._events:
            self._events = events
            self._loop.change(self._end.fileno(), events)

    # -- the target's side --

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self._channel, len(data))
        for message in self._answers.feed(data):
            self._answer(message)

    def on_credit(self) -> None:
        while self._channel and self._there and (room := self._link.writable(self._channel)):
            self._link.send(self._channel, bytes(self._there[:room]))
            del self._there[:room]
            if self._eof and not self._there:
                self._link.send_eof(self._channel)
        self._watch()

    def on_eof(self) -> None:
        self._over = True
        self._watch()

    def on_reset(self) -> None:
        self._channel = 0
        self._close()

    def on_accepted(self, info: dict[str, Any]) -> None:
        return

    def on_refused(self, errno: int, text: str) -> None:
        self._close()

    def _close(self, *, reset: bool = False) -> None:
        if not self._closed:
            self._closed = True
            if self._channel and (reset or not self._eof):
                self._link.reset(self._channel)
            elif self._channel:
                self._link.forget(self._channel)
            self._loop.unwatch(self._end.fileno())
            self._end.close()
            self._on_end()


class Messages:
    """Cuts a stream into messages by the two bytes before each (RFC 1035 4.2.2)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: Buffer) -> Iterator[bytes]:
        self._rest += bytes(data)
        while len(self._rest) >= 2 and len(self._rest) >= 2 + (size := struct.unpack_from("!H", self._rest)[0]):
            message, self._rest = self._rest[2 : 2 + size], self._rest[2 + size :]
            yield message


def framed(message: Buffer) -> bytes:
    return struct.pack("!H", len(message)) + bytes(message)
