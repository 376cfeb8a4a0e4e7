"""Mirrored connections on their way to the program. It may be slow or stand still: what it doesn't take is dropped, not kept.

The bounds are for all of them together, as one that stands still takes from none. The agent bounds its own side.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from sidestage.session.watch import LOCAL, Watched, WatchedPump
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop
from sidestage.stream.pump import READ

MAX_OPEN = 4096  # connections at once; each costs a descriptor and about 10 KiB
MAX_KEPT = 16 << 20  # bytes that the program has not taken yet
LINGER = 10.0  # seconds that a client's end is kept back from a program that has not answered yet
SEND_BUFFER = 128 << 10  # bytes that the kernel keeps for a connection; by itself it goes up to tcp_wmem's megabytes


class Copies:
    def __init__(self, loop: Loop, dropped: Callable[[int], None]) -> None:
        """`dropped(port)` is called for each connection that is not told to the program as it was."""
        self._loop, self.dropped = loop, dropped
        self.open = self.kept = 0

    def room(self, port: int) -> bool:
        """May one more connection begin?"""
        if self.open < MAX_OPEN:
            return True
        self.dropped(port)
        return False

    def start(self, link: Link, channel: int, port: int, sock: socket.socket, watched: Watched | None) -> None:
        """Pump what the client sends from `channel` to `sock`; what the program answers is watched at most."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        _Copy(self, self._loop, link, channel, port, sock, watched).start()


class _Copy(WatchedPump):
    def __init__(
        self, copies: Copies, loop: Loop, link: Link, channel: int, port: int, sock: socket.socket, watched: Watched | None
    ) -> None:
        super().__init__(loop, link, channel, sock, watched)
        self._copies, self._port = copies, port
        self._received = self._counted = 0
        self._kept_back = False  # the client's end
        copies.open += 1

    def _count(self) -> None:
        if not self._ended:
            kept = self._received - self.given
            self._copies.kept += kept - self._counted
            self._counted = kept

    def on_data(self, data: Any) -> None:
        self._received += len(data)
        super().on_data(data)
        self._count()
        if self._counted and self._copies.kept > MAX_KEPT:
            self._copies.dropped(self._port)
            self._fail()

    def _write(self) -> None:
        super()._write()
        self._count()

    def _room(self) -> int:
        return READ

    def _forward(self, data: bytes) -> None:
        if self._kept_back and not self._unanswered():
            self._end_now()

    def on_eof(self) -> None:
        """The target may have answered sooner, and its client gone: the program's own answer is still to be seen."""
        if self._unanswered():
            self._kept_back = True
            self._loop.later(LINGER, self._end_now)
        else:
            super().on_eof()

    def _unanswered(self) -> bool:
        return self._watched is not None and self._watched.observer.waiting(LOCAL)

    def _end_now(self) -> None:
        if self._kept_back:
            self._kept_back = False
            if not self._ended:
                super().on_eof()

    def _over(self) -> None:
        super()._over()
        self._copies.open -= 1
        self._copies.kept -= self._counted
        self._counted = 0
