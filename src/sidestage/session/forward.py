"""Ports of this machine whose connections are made from the target's network: `port-forward -L`."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sidestage.session.attempt import Attempt
from sidestage.session.bare import Bare
from sidestage.session.opened import Own, Waiting
from sidestage.session.resolver import Resolver
from sidestage.stream.link import Args

BACKLOG = 128
MAX_OPEN = 4096  # connections at once
_RST = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Forward:
    bind: str
    port: int  # 0: any that is free
    host: str  # as the target knows it
    remote: int

    def __str__(self) -> str:
        return f"{_address(self.bind, self.port)} -> {_address(self.host, self.remote)}"


class Forwards:
    def __init__(self, bare: Bare, resolver: Resolver) -> None:
        self._bare, self._resolver = bare, resolver
        self._open = 0

    def serve(self, forward: Forward, listener: socket.socket) -> None:
        """Connections to `listener` go to where `forward` says, looked up anew for each."""
        listener.setblocking(False)

        def arrived(_events: int) -> None:
            try:
                sock, _peer = listener.accept()
            except OSError:
                return
            if self._open >= MAX_OPEN:
                self._bare.say(f"{forward}: {MAX_OPEN} connections are open; one more is refused")
                _refuse(sock)
                return
            self._open += 1
            _Connection(self._bare, forward, sock, self._ended).begin(self._resolver)

        self._bare.loop.watch(listener.fileno(), select.EPOLLIN, arrived)

    def _ended(self) -> None:
        self._open -= 1


class _Connection:
    def __init__(self, bare: Bare, forward: Forward, sock: socket.socket, ended: Callable[[], None]) -> None:
        self._bare, self._forward, self._sock, self._ended = bare, forward, sock, ended
        self._addresses: list[str] = []

    def begin(self, resolver: Resolver) -> None:
        resolver.resolve(self._forward.host, self._resolved)

    def _resolved(self, addresses: list[str], why: str) -> None:
        self._addresses = addresses
        if addresses:
            self._try()
        else:
            self._fail(why)

    def _try(self) -> None:
        """The next address."""
        link, address, forward = self._bare.links.carrier(), self._addresses.pop(0), self._forward
        attempt = Attempt(self._bare.feed, "tcp", host=address, port=forward.remote, name=forward.host)

        def connected(channel: int, _info: Args) -> None:
            def ended(up: int, down: int) -> None:
                attempt.ended(up, down)
                self._ended()

            attempt.result()
            Own(self._bare.loop, link, channel).carry(self._sock, ended)

        def refused(errno: int) -> None:
            attempt.result(errno)
            if self._addresses:
                self._try()
            else:
                self._fail(os.strerror(errno).lower())

        Waiting(connected, refused).open(link, "tcp", {"host": address, "port": forward.remote})

    def _fail(self, why: str) -> None:
        self._bare.say(f"{self._forward}: {why}")
        _refuse(self._sock)
        self._ended()


def listen(forward: Forward) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in forward.bind else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((forward.bind, forward.port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _refuse(sock: socket.socket) -> None:
    """By RST: what was accepted here was not accepted there."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    sock.close()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
