"""A connect() under way for a channel that the peer opened, on either machine: it is refused if it fails or takes too long."""

from __future__ import annotations

import errno
import select
import socket
from typing import Callable

from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop


class Connecting(QuietHandler):
    """`sock` is non-blocking and was told to connect; `connected()` goes on with it, and accepts the channel."""

    def __init__(
        self, loop: Loop, link: Link, channel: int, sock: socket.socket, seconds: float, connected: Callable[[], None]
    ) -> None:
        self._loop, self._link, self._channel, self._sock, self._connected = loop, link, channel, sock, connected
        loop.watch(sock.fileno(), select.EPOLLOUT, self._ready)
        self._timer = loop.later(seconds, lambda: self._refuse(errno.ETIMEDOUT))
        link.register(channel, self)

    def _ready(self, _events: int) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refuse(code)
            return
        self._end()
        self._connected()

    def _refuse(self, code: int) -> None:
        self._end()
        self._sock.close()
        self._link.refuse(self._channel, code)

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())

    def on_reset(self) -> None:
        self._end()
        self._sock.close()
