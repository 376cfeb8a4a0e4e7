"""Connections that the agent is asked to make, on a link of this process. The lane makes them in another one (lane.py)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol

from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop
from sidestage.stream.pump import SocketPump

Args = dict[str, Any]
Ended = Callable[[int, int], None]  # bytes up and down


class Opened(Protocol):
    """A connection that the agent has made."""

    def carry(self, sock: socket.socket, ended: Ended) -> None:
        """Pump between it and `sock`, which belongs to it from here on."""

    def reset(self) -> None: ...


class Own:
    """A channel of a link here."""

    def __init__(self, loop: Loop, link: Link, channel: int) -> None:
        self._loop, self._link, self._channel = loop, link, channel

    def carry(self, sock: socket.socket, ended: Ended) -> None:
        pump = SocketPump(self._loop, self._link, self._channel, sock, on_end=lambda: ended(pump.taken, pump.given))
        pump.start()

    def reset(self) -> None:
        self._link.reset(self._channel)


class Waiting(QuietHandler):
    """A channel whose answer is awaited."""

    def __init__(self, connected: Callable[[int, Args], None], refused: Callable[[int], None]) -> None:
        self._connected, self._refused = connected, refused
        self._channel = 0

    def open(self, link: Link, kind: str, args: Args) -> None:
        self._link = link
        self._channel = link.open(kind, args, self)

    def on_accepted(self, info: Args) -> None:
        try:
            self._connected(self._channel, info)
        except OSError as error:  # no descriptor or no port is left
            self._link.reset(self._channel)
            self._refused(error.errno or errno.EIO)

    def on_refused(self, errno: int, text: str) -> None:
        self._refused(errno)

    def on_data(self, data: Buffer) -> None:
        raise AssertionError("data before the channel was accepted")

    def on_reset(self) -> None:
        self._refused(errno.ECONNRESET)
