"""The session's end of a datagram socket's relay: a loopback socket that stands for host:port, and a channel to there.

It talks to the first socket that talks to it, and lives as long as that one: nobody says when a datagram socket is closed, so now
and then its address is tried: as long as it can't be bound, somebody has it.

When the target refuses a datagram by ICMP, the program's socket is told by this kernel: for a moment the relay is deaf to it, and a
datagram is sent in its name, which nobody takes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import Buffer
from sidestage.session.broker import Reply
from sidestage.session.here import Here
from sidestage.stream.links import Links
from sidestage.stream.loop import Loop
from sidestage.trap.network import Network
from sidestage.views.answered import Answered, Questions
from sidestage.views.names import DNS_PORT, server_failure

CHECK = 10.0  # seconds between two looks whether the program's socket is still there
UNUSED = 30  # checks until a relay that nobody spoke to is closed
MAX_DATAGRAM = 65535
_TO_NOBODY = os.urandom(16)  # should it arrive after all, it is known by this


class UdpRelay:
    """`heard(message)` is told each datagram for the program; `here` takes queries that are this machine's, and what was `answered`
    lately is not asked again."""

    def __init__(
        self, loop: Loop, links: Links, sock: socket.socket, remote: tuple[str, int], reply: Reply,
        heard: Callable[[Buffer], None], network: Network, here: Here | None, answered: Answered,
        refused: Callable[[UdpRelay], None],
    ) -> None:  # fmt: skip
        self._loop, self._sock, self._reply, self._heard, self._network = loop, sock, reply, heard, network
        self._link = links.carrier()
        self._args: dict[str, Any] = {"host": remote[0], "port": remote[1]}
        self._dns = remote[1] == DNS_PORT
        self._here = here if self._dns else None
        self._answered, self._questions = answered, Questions()
        self._tell_refused, self._accepted = refused, False
        self.port: int = sock.getsockname()[1]
        self._peer: tuple[str, int] | None = None
        self._checks = 0
        self._failed = False
        self._queries: list[bytes] = []  # as long as a refusal must answer them
        # A program that asks for a name waits for no word of its socket: the first query travels with the order to open it.
        self._channel = 0 if self._dns else self._link.open("udp", self._args, self)
        loop.watch(sock.fileno(), select.EPOLLIN, self._readable)
        loop.later(CHECK, self._check)
        if self._dns:
            self._readable(0)

    def _readable(self, _: int) -> None:
        while self._sock.fileno() >= 0:
            try:
                data, peer = self._sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for what we sent: the program has closed its socket
                continue
            self._peer = self._peer or peer
            if peer == self._peer and data != _TO_NOBODY:
                self._send(data)

    def _send(self, data: bytes) -> None:
        if self._here and self._here.takes(data):
            self._here.ask(data, self._args["host"], self._answered_here)
        elif self._dns and (known := self._answered.get(self._args["host"], data)):
            self._heard(known)
            self._answer(known)
        elif self._failed:
            self._answer(server_failure(data))
        else:
            self._ask(data)

    def _ask(self, data: bytes) -> None:
        if self._dns:
            self._questions.asked(data)
        if not self._channel:
            self._queries = [data]
            try:
                self._channel = self._link.open("udp", self._args, self, first=data)
            except ProtocolError:  # a limit of the link
                self.on_refused(errno.EAGAIN, "")
        elif self._link.writable(self._channel) >= len(data):  # else dropped, as any full network queue does
            self._link.send(self._channel, data, record=True)
            if self._queries:
                self._queries.append(data)

    def on_accepted(self, info: dict[str, Any]) -> None:
        self._queries, self._accepted = [], True
        self._reply(local=info.get("local"))

    def on_data(self, data: Buffer) -> None:
        self._link.consumed(self._channel, len(data))
        self._heard(data)
        self._answer(data)
        if self._dns and (query := self._questions.answered(answer := bytes(data))):
            self._answered.put(self._args["host"], query, answer)

    def _answered_here(self, data: bytes) -> None:
        if data and self._sock.fileno() >= 0:
            self._heard(data)
            self._answer(data)

    def _answer(self, data: Buffer) -> None:
        if self._peer:
            with contextlib.suppress(OSError):
                self._sock.sendto(data, self._peer)

    def on_refused(self, code: int, text: str) -> None:
        if self._accepted:
            self._tell_refused(self)
        elif self._dns:
            self._failed = True  # late queries are still to come through this socket: they are answered the same way
            for query in self._queries:
                self._answer(server_failure(query))
        else:
            self._reply(code)
            self._close()

    def refuse(self, program: socket.socket) -> None:
        """`program` is the socket that talks to us: its next call fails, or the one that waits."""
        if self._sock.fileno() < 0 or not self._peer:
            return
        host, port = self._sock.getsockname()[:2]
        mapped = "::ffff:" if program.family == socket.AF_INET6 and "." in host else ""
        self._sock.connect((host, port))
        with contextlib.suppress(OSError):  # it has an error to be told of already
            program.sendto(_TO_NOBODY, socket.MSG_DONTWAIT, (mapped + host, port))
        self._sock.connect(self._peer)

    def on_reset(self) -> None:
        self._close()

    def on_eof(self) -> None:
        self._close()

    def on_credit(self) -> None:
        return

    def _check(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._checks += 1
        if _is_bound(self._network, self._peer) if self._peer else self._checks < UNUSED:
            self._loop.later(CHECK, self._check)
            return
        if self._channel and not self._failed:
            self._link.reset(self._channel)
        self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()


def _is_bound(network: Network, address: tuple[str, int]) -> bool:
    with network.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return True
    return False
