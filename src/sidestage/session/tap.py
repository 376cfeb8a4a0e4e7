"""Mirrored connections of the target with both directions, for `dump`: claimed, paired, and told to a sink."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidestage.protocol.messages import Buffer
from sidestage.session.bare import Bare
from sidestage.stream.link import Args, Link, QuietHandler

CLIENT, SERVER = 0, 1
_SIDES = {"mirror": CLIENT, "answer": SERVER}
MAX_CONNECTIONS = 4096  # as many as an agent follows

Address = tuple[str, int]


@dataclass(slots=True, eq=False)
class Connection:
    peer: Address
    local: Address
    open: set[int] = field(default_factory=set)  # sides that have begun
    ended: set[int] = field(default_factory=set)


class Sink(Protocol):
    def began(self, connection: Connection) -> None: ...
    def data(self, connection: Connection, side: int, data: bytes) -> None: ...
    def ended(self, connection: Connection, side: int, whole: bool) -> None:
        """`whole`: it closed its direction; else it was reset, or some of it was lost."""
        ...

    def over(self, connection: Connection) -> None:
        """Both sides have ended."""
        ...


class Tap:
    def __init__(self, bare: Bare, ports: Sequence[int], sink: Sink, ready: Callable[[], None]) -> None:
        """`ready` is called once, when the agent sees the first packets of all ports."""
        self._bare, self._ports, self._sink = bare, ports, sink
        self._connections: dict[tuple[Address, Address], Connection] = {}
        bare.opened, bare.again = self._opened, self._claim
        bare.noticed = self._noticed
        self._ready, self._claims = ready, len(ports)
        for port in ports:
            bare.links.everywhere("mirror", {"port": port, "answers": True}, self._claimed(port))

    def _claim(self, link: Link) -> None:
        for port in self._ports:
            link.call("mirror", {"port": port, "answers": True}, self._claimed(port))

    def _claimed(self, port: int) -> Callable[[Args, Buffer, int], None]:
        def done(result: Args, _raw: Buffer, code: int) -> None:
            if code:
                lacks = "the agent lacks CAP_NET_RAW there" if code == errno.EPERM else ""
                self._bare.lose(f"port {port} can't be mirrored: {lacks or result.get('text') or os.strerror(code).lower()}")
                return
            self._claims -= 1
            if not self._claims:
                self._ready()

        return done

    def _noticed(self, name: str, args: Args) -> bool:
        if name != "mirror.dropped":
            return False
        self._bare.say(f"{args['connections']} connections to port {args['port']} are missing or cut: they were too fast for us")
        return True

    def _opened(self, link: Link, channel: int, kind: str, args: Args) -> None:
        side = _SIDES.get(kind)
        if side is None or len(self._connections) >= MAX_CONNECTIONS:
            link.refuse(channel, errno.EAGAIN)
            return
        peer, local = (args["peer"][0], args["peer"][1]), (args["local"][0], args["local"][1])
        connection = self._connections.get((peer, local))
        if connection is None or side in connection.open:
            connection = self._connections[peer, local] = Connection(peer, local)
            self._sink.began(connection)
        connection.open.add(side)
        link.accept(channel, {})
        link.register(channel, _Side(link, channel, self._sink, connection, side, self._ended))

    def _ended(self, connection: Connection) -> None:
        if connection.ended == {CLIENT, SERVER}:
            key = (connection.peer, connection.local)
            if self._connections.get(key) is connection:
                del self._connections[key]
                self._sink.over(connection)


class _Side(QuietHandler):
    def __init__(
        self, link: Link, channel: int, sink: Sink, connection: Connection, side: int, ended: Callable[[Connection], None]
    ) -> None:
        self._link, self._channel, self._sink = link, channel, sink
        self._connection, self._side, self._ended = connection, side, ended

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self._channel, len(data))
        self._sink.data(self._connection, self._side, bytes(data))

    def on_eof(self) -> None:
        self._link.send_eof(self._channel)
        self._end(whole=True)

    def on_reset(self) -> None:
        self._end(whole=False)

    def _end(self, whole: bool) -> None:
        self._link.forget(self._channel)
        self._connection.ended.add(self._side)
        self._sink.ended(self._connection, self._side, whole)
        self._ended(self._connection)
