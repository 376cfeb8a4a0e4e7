"""Moves bytes between a socket and a channel, both ways, as fast as the slower side takes them.

Towards the channel: read no more than the credit, and stop watching the socket without any. Towards the socket: what it
doesn't take is kept, at most a window, and credit is granted only for what it took. Each direction ends by half-close;
an error on either side ends both by RST (SO_LINGER 0, socket(7)), as a truncated stream must not look complete.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional

from sidestage.protocol.messages import Buffer
from sidestage.protocol.wire import MAX_RECORD
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop

READ = 256 << 10  # bytes a read
REFUSALS = 0.01  # seconds in which no more than two are told: who sends much to nobody hears of it often enough
_RST = struct.pack("ii", 1, 0)


class SocketPump:
    def __init__(
        self,
        loop: Loop,
        link: Link,
        channel: int,
        sock: socket.socket,
        *,
        on_end: Optional[Callable[[], None]] = None,
    ) -> None:
        self._loop, self._link, self._channel, self._sock = loop, link, channel, sock
        self._on_end = on_end
        self.taken = self.given = 0  # bytes read from the socket, and written to it
        self._out: Deque[Any] = deque()
        self._reading = True  # the socket has not ended
        self._eof_in = False  # the channel has ended; shut the socket down after what is queued
        self._shut = self._ended = False
        self._events = -1

    def start(self) -> None:
        sock = self._sock
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.register(self._channel, self)
        self._watch()

    def _watch(self) -> None:
        """Watch for what can be acted on, and for nothing else: what can't would make the loop spin."""
        if self._ended:
            return
        events = 0
        if self._reading and self._room() > 0:
            events |= select.EPOLLIN
        if self._out:
            events |= select.EPOLLOUT
        if events == self._events:
            return
        fd = self._sock.fileno()
        # EPOLLHUP and EPOLLERR can't be masked: with nothing to do the descriptor leaves the epoll set.
        if self._events > 0 and events:
            self._loop.change(fd, events)
        elif events:
            self._loop.watch(fd, events, self._ready)
        elif self._events > 0:
            self._loop.unwatch(fd)
        self._events = events

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT or (self._out and events & select.EPOLLERR):
            self._write()
        if not self._ended and events & ~select.EPOLLOUT and self._events & select.EPOLLIN:
            self._read()
        self._watch()

    def _read(self) -> None:
        try:
            data = self._sock.recv(min(self._room(), READ))
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self.taken += len(data)
        if not data:
            self._reading = False
            self._link.send_eof(self._channel)
            self._end_if_done()
        else:
            self._pass(data)

    def _room(self) -> int:
        """How much may be read from the socket."""
        return self._link.writable(self._channel)

    def _pass(self, data: bytes) -> None:
        """What was read from the socket."""
        self._link.send(self._channel, data)

    def _write(self) -> None:
        out, took = self._out, 0
        try:
            while out:
                sent = self._sock.send(out[0])
                took += sent
                if sent < len(out[0]):
                    out[0] = memoryview(out[0])[sent:]
                    break
                out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._fail()
            return
        if took:
            self.given += took
            self._took(took)
        if self._eof_in and not out:
            self._shutdown()

    def _took(self, count: int) -> None:
        """The socket has taken so much of what was queued."""
        self._link.consumed(self._channel, count)

    def _shutdown(self) -> None:
        if not self._shut:
            self._shut = True
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._fail()
                return
            self._end_if_done()

    def on_data(self, data: Buffer) -> None:
        self._put(data)

    def _put(self, data: Buffer) -> None:
        """Queue it for the socket."""
        self._out.append(data)
        if len(self._out) == 1:
            self._write()
        self._watch()

    def on_eof(self) -> None:
        self._eof_in = True
        if not self._out:
            self._shutdown()

    def on_credit(self) -> None:
        self._watch()

    def on_reset(self) -> None:
        self._close(reset=True)

    def on_accepted(self, info: Dict[str, Any]) -> None:
        return

    def on_refused(self, code: int, text: str) -> None:
        self._close(reset=True)

    def _fail(self) -> None:
        if not self._ended:
            self._link.reset(self._channel)
            self._close(reset=True)

    def _end_if_done(self) -> None:
        if not self._reading and self._shut:
            self._close(reset=False)

    def _close(self, reset: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._link.forget(self._channel)
        if self._events > 0:
            self._loop.unwatch(self._sock.fileno())
        if reset and self._sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            except OSError:
                pass  # gone already
        self._sock.close()
        self._out.clear()
        if self._on_end:
            self._on_end()


class DatagramPump:
    """The same for a connected socket with record boundaries, one record a frame: datagrams are dropped when either side is
    full, as the network does; the records of a sequence wait."""

    def __init__(
        self,
        loop: Loop,
        link: Link,
        channel: int,
        sock: socket.socket,
        *,
        on_end: Optional[Callable[[], None]] = None,
    ) -> None:
        self._loop, self._link, self._channel, self._sock = loop, link, channel, sock
        self._on_end = on_end
        self._lossy = sock.type == socket.SOCK_DGRAM
        self._out: Deque[Any] = deque()
        self._events = 0
        self._refused = 0  # in the last REFUSALS
        self._eof_in = self._ended = False

    def start(self) -> None:
        self._sock.setblocking(False)
        self._link.register(self._channel, self)
        self._loop.watch(self._sock.fileno(), 0, self._ready)
        self._watch()

    def _watch(self) -> None:
        if self._ended:
            return
        reads = self._lossy or self._link.writable(self._channel) >= MAX_RECORD
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if self._out else 0)
        if events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)

    def _ready(self, events: int) -> None:
        if self._out:
            self._write()
        if events & ~select.EPOLLOUT:
            self._read()
        self._watch()

    def _read(self) -> None:
        while not self._ended:
            room = self._link.writable(self._channel)
            if room < MAX_RECORD and not self._lossy:
                return
            try:
                data, _, flags, _ = self._sock.recvmsg(MAX_RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                # An ICMP refusal is about one datagram; a record stream is broken by it.
                if self._lossy and error.errno == errno.ECONNREFUSED:
                    self._tell_refused()
                    continue
                self._fail()
                return
            if flags & socket.MSG_TRUNC:  # a record that no frame takes: better no stream than one with a hole
                self._fail()
                return
            if not data and not self._lossy:
                self._link.send_eof(self._channel)
                self._close()
            elif len(data) <= room:
                self._link.send(self._channel, data, record=True)

    def _tell_refused(self) -> None:
        """At once, and then once more for all that come within REFUSALS."""
        self._refused += 1
        if self._refused == 1:
            self._link.datagram_refused(self._channel, errno.ECONNREFUSED)
            self._loop.later(REFUSALS, self._tell_others)

    def _tell_others(self) -> None:
        more, self._refused = self._refused > 1, 0
        if more and not self._ended:
            self._tell_refused()

    def _write(self) -> None:
        while self._out:
            try:
                self._sock.send(self._out[0])
            except BlockingIOError:
                return
            except OSError:
                self._fail()
                return
            self._link.consumed(self._channel, len(self._out.popleft()))
        if self._eof_in:
            self._close()

    def on_data(self, data: Buffer) -> None:
        if self._lossy:
            try:
                try:
                    self._sock.send(data)
                except ConnectionRefusedError:  # the one before was; this one hasn't been sent yet
                    self._tell_refused()
                    self._sock.send(data)
            except OSError:
                pass  # lost, as on any network
            self._link.consumed(self._channel, len(data))
        else:
            self._out.append(data)
            if len(self._out) == 1:
                self._write()
            self._watch()

    def on_eof(self) -> None:
        self._eof_in = True
        if not self._out:
            self._close()

    def on_reset(self) -> None:
        self._close()

    def on_credit(self) -> None:
        self._watch()

    def on_accepted(self, info: Dict[str, Any]) -> None:
        return

    def on_refused(self, code: int, text: str) -> None:
        self._close()

    def _fail(self) -> None:
        if not self._ended:
            self._link.reset(self._channel)
            self._close()

    def _close(self) -> None:
        if not self._ended:
            self._ended = True
            self._link.forget(self._channel)
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            if self._on_end:
                self._on_end()
