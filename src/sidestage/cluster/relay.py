"""A WebSocket on one side, a local socket on the other: the session's link sees nothing but a duplex byte stream.

Runs in the keeper's loop. Each direction stops reading while the other end does not take what was read, so that the stream's
own back-pressure reaches from end to end and no more than one read is held.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

from sidestage.cluster.channels import Channels
from sidestage.cluster.websocket import Buffer, WebSocketError
from sidestage.stream.loop import Loop

READ = 256 << 10  # bytes a turn, of each side
IOV = 512  # buffers a writev, below IOV_MAX
FAREWELL = 3.0  # seconds for the server to answer our end

_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Relay:
    """`local` and `sock` belong to the relay; `on_end(reason)` comes once, when both are closed."""

    def __init__(
        self, loop: Loop, sock: Any, leftover: bytes, channels: Channels, local: socket.socket, on_end: Callable[[str], None]
    ) -> None:
        self.channels = channels
        self._loop, self._sock, self._local, self._on_end = loop, sock, local, on_end
        self._to_server: list[Buffer] = [*channels.answers]
        channels.answers.clear()
        self._to_local: list[Buffer] = []
        self._finished = self._closed = False
        self._sides = (_Side(loop, sock.fileno(), self._server_ready), _Side(loop, local.fileno(), self._local_ready))
        sock.setblocking(False)
        local.setblocking(False)
        self._interest()
        loop.soon(self._begin)
        self._leftover = leftover

    def _begin(self) -> None:
        if self._closed:
            return
        self._send()
        if self._feed(self._leftover):
            self._settle()
            self._server_ready(0)  # TLS may hold decrypted bytes that epoll doesn't see

    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        for side in self._sides:
            side.want(0)
        self._sock.close()
        self._local.close()
        self._on_end(reason)

    # -- from the server --

    def _server_ready(self, events: int) -> None:
        if self._to_server:
            self._send()
        if not self._reading():
            return
        size = 0
        # TLS gives a record (16 KiB) a read: the session gets many of them at a time, as each costs it a turn of its loop.
        while size < READ:
            try:
                data = self._sock.recv(READ)
            except _AGAIN:
                break
            except OSError as error:
                self._deliver_and_close(f"the connection to the API server broke: {_text(error)}")
                return
            if not data:
                self._deliver_and_close(self.channels.lost())
                return
            size += len(data)
            if not self._feed(data):
                return
        else:
            # More may be decrypted already, which epoll doesn't see.
            self._loop.soon(lambda: None if self._closed else self._server_ready(0))
        self._settle()

    def _feed(self, data: bytes) -> bool:
        """False when that was the end."""
        try:
            self._to_local += self.channels.feed(data)
        except WebSocketError as error:
            self.close(f"the API server sent {error}")
            return False
        if self.channels.ended is not None:
            self._settle()
        return not self._closed

    def _settle(self) -> None:
        """Pass on what was fed: to the session, and answers to the server."""
        if self._closed:
            return
        if self._finished:
            self._to_local.clear()
        elif self._to_local:
            self._deliver()
        if self.channels.answers:
            self._to_server += self.channels.answers
            self.channels.answers.clear()
            self._send()
        if self.channels.ended is not None and not self._to_local:
            self.close(self.channels.ended)
        self._interest()

    def _deliver_and_close(self, reason: str) -> None:
        if self._to_local and not self._finished:
            self._deliver()
        self.close(self.channels.ended or reason)

    def _reading(self) -> bool:
        return not (self._closed or self._to_local)

    def _deliver(self) -> None:
        out = self._to_local
        try:
            while out:
                _drop(out, os.writev(self._local.fileno(), out[:IOV]))
        except BlockingIOError:
            pass
        except OSError:
            self.close("the session has ended")
            return
        self._interest()

    # -- from the session --

    def _local_ready(self, events: int) -> None:
        if self._to_local:
            self._deliver()
            if not self._closed and not self._to_local:
                self._server_ready(0)
        if self._closed or self._to_server or not events & ~select.EPOLLOUT:
            return
        try:
            data = os.read(self._local.fileno(), READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._to_server += self.channels.wrap(data)
        else:
            self._finished = True
            self._to_local.clear()
            self._to_server += self.channels.finish()
            self._loop.later(FAREWELL, lambda: self.close("the session has ended"))
        self._send()

    def _send(self) -> None:
        out = self._to_server
        try:
            while out:
                sent = self._sock.send(out[0])
                if sent == len(out[0]):
                    del out[0]
                else:
                    out[0] = memoryview(out[0])[sent:]
        except _AGAIN:
            pass
        except OSError as error:
            self.close(self.channels.ended or f"the connection to the API server broke: {_text(error)}")
            return
        self._interest()

    def _interest(self) -> None:
        """What epoll is to tell: nothing of a side that the other one holds up."""
        if not self._closed:
            server, local = self._sides
            server.want((0 if self._to_local else select.EPOLLIN) | (select.EPOLLOUT if self._to_server else 0))
            held = self._to_server or self._finished
            local.want((0 if held else select.EPOLLIN) | (select.EPOLLOUT if self._to_local else 0))


class _Side:
    """A descriptor in the loop; not in it at all while nothing is wanted, as epoll would report its hang-up for ever."""

    def __init__(self, loop: Loop, fd: int, callback: Callable[[int], None]) -> None:
        self._loop, self._fd, self._callback, self._events = loop, fd, callback, 0

    def want(self, events: int) -> None:
        if events == self._events:
            return
        if not events:
            self._loop.unwatch(self._fd)
        elif self._events:
            self._loop.change(self._fd, events)
        else:
            self._loop.watch(self._fd, events, self._callback)
        self._events = events


def _drop(out: list[Buffer], sent: int) -> None:
    gone = 0
    while gone < len(out) and sent >= len(out[gone]):
        sent -= len(out[gone])
        gone += 1
    del out[:gone]
    if sent:
        out[0] = memoryview(out[0])[sent:]


def _text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
