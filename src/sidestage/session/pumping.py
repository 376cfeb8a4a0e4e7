"""The lane itself (lane.py): bulk links, and pumps between their channels and the program's connections."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
from typing import Any

from sidestage.protocol.messages import Buffer
from sidestage.session.broker import BrokerServer, Reply
from sidestage.session.lane import TOTAL
from sidestage.session.opened import Waiting
from sidestage.stream.link import Link, QuietHandler
from sidestage.stream.loop import Loop
from sidestage.stream.pump import SocketPump

PULSE = 0.5  # seconds between two looks at what went through
_RST, _ORDERLY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)

Args = dict[str, Any]


class Pumping:
    def __init__(self, sock: socket.socket, total: mmap.mmap, limits: dict[str, Any]) -> None:
        self._total, self._limits = total, limits
        self._up = self._down = 0  # by links that have ended
        self._loop = Loop()
        self._links: list[Link] = []
        self._held: dict[int, _Held] = {}  # connected, and not carried yet
        broker = BrokerServer(self._loop, sock, self._loop.stop)
        for op, handler in {
            "link": self._link, "open": self._open, "carry": self._carry, "reset": self._reset, "drop": self._drop,
        }.items():  # fmt: skip
            broker.on(op, handler)
        self._pulse()

    def run(self) -> None:
        self._loop.run()

    def _pulse(self) -> None:
        up = self._up + sum(link.bytes_out for link in self._links)
        down = self._down + sum(link.bytes_in for link in self._links)
        self._total[:] = TOTAL.pack(up, down)
        self._loop.later(PULSE, self._pulse)

    def _link(self, _args: Args, fds: list[int], reply: Reply) -> None:
        (fd,) = fds

        def closed(_reason: str) -> None:
            os.close(fd)
            self._links.remove(link)
            self._up += link.bytes_out
            self._down += link.bytes_in
            reply()

        link = Link(
            self._loop, fd, fd, "laptop", on_call=lambda call, *_: link.fail(call, errno.ENOSYS),
            on_open=lambda channel, *_: link.refuse(channel, errno.ENOSYS), on_event=lambda *_: None, on_closed=closed,
            **self._limits,
        )  # fmt: skip
        self._links.append(link)

    def _open(self, args: Args, _fds: list[int], reply: Reply) -> None:
        if not self._links:
            reply(errno.ECONNRESET)  # the last one broke just now
            return
        link = min(self._links, key=lambda each: each.load)

        def connected(channel: int, info: Args) -> None:
            self._held[args["number"]] = _Held(link, channel)
            reply(info=info)

        Waiting(connected, reply).open(link, "tcp", {"host": args["host"], "port": args["port"]})

    def _carry(self, args: Args, fds: list[int], reply: Reply) -> None:
        held, sock = self._held.pop(args["number"]), socket.socket(fileno=fds[0])
        held.go_on(_Pump(self._loop, held.link, held.channel, sock, reply))

    def _reset(self, args: Args, _fds: list[int], _reply: Reply) -> None:
        held = self._held.pop(args["number"])
        held.link.reset(held.channel)

    def _drop(self, _args: Args, _fds: list[int], _reply: Reply) -> None:
        for link in list(self._links):
            link.close("the agent is lost")


class _Pump(SocketPump):
    """While we live its socket's end is orderly, if we say so; should we be killed, what is cut off must not look complete."""

    def __init__(self, loop: Loop, link: Link, channel: int, sock: socket.socket, reply: Reply) -> None:
        super().__init__(loop, link, channel, sock, on_end=lambda: reply(up=self.taken, down=self.given))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)

    def _close(self, reset: bool) -> None:
        if not reset and self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
        super()._close(reset)


class _Held(QuietHandler):
    """A channel that is connected, whose socket is on its way."""

    def __init__(self, link: Link, channel: int) -> None:
        self.link, self.channel = link, channel
        self._data: list[Buffer] = []
        self._eof = self._lost = False
        link.register(channel, self)

    def on_data(self, data: Buffer) -> None:
        self._data.append(data)

    def on_eof(self) -> None:
        self._eof = True

    def on_reset(self) -> None:
        self._lost = True

    def go_on(self, pump: SocketPump) -> None:
        """From here on they are the pump's."""
        if self._lost:
            pump.on_reset()
            return
        pump.start()
        for data in self._data:
            pump.on_data(data)
        if self._eof:
            pump.on_eof()
