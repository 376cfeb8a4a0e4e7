"""One intercepted connection: whole to one session or to the target, and in the end just spliced (routed.py: by request).

The client comes first: whatever the session's side does, a connection that can go to the target does. Nothing of it is lost
by then, as what was read for a session that did not take it is kept.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Dict, List, Optional, Protocol

from sidestage.agent.legs import Leg, SocketLeg
from sidestage.protocol.messages import Buffer
from sidestage.stream.loop import Loop

CLIENT, POD = -1, 0  # numbers of legs; the others are those of claims

LINGER = 30.0  # seconds for a client to close after us
FIRST_BYTES = 1.0  # seconds to wait for a request that shall be answered 502
_DOWN = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 59\r\n\r\n"
    b"sidestage: the local program that took this port is down.\n\n"
)
_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ")
_PROBE = b"\r\nuser-agent: kube-probe/"


class Place(Protocol):
    """Where a passage's other ends are."""

    loop: Loop

    def to_pod(self, owner: Any, client: "Client") -> Leg: ...
    def to_session(self, owner: Any, number: int, client: "Client") -> Optional[Leg]: ...
    def note(self, number: int, text: str) -> None: ...


class Client:
    """An accepted connection, and where it wanted to go."""

    __slots__ = ("inside", "leg", "local", "passage", "peer", "pod", "wire")

    def __init__(self, place: Place, sock: socket.socket, peer: Any, local: Any, ended: Callable[["Client"], None]) -> None:
        self.peer, self.local = peer, local
        self.passage: Any = None
        self.pod: Optional[SocketLeg] = None
        self.wire = SocketLeg(place.loop, None, CLIENT, sock)  # its passage will be the owner
        self.wire.ended = lambda: ended(self)
        self.leg: Leg = self.wire  # what the passage deals with: inside TLS, if that ends here
        self.inside: Optional[Dict[str, str]] = None  # then what the client said of it: the server's `name`, and the `protocol`

    def drain(self) -> None:
        """End it if that loses nothing."""
        self.passage.drain()


class Spliced:
    """Two legs joined: what one says the other hears."""

    def __init__(self, one: Leg, other: Leg) -> None:
        self._other = {id(one): other, id(other): one}
        one.owner = other.owner = self
        for leg, peer in ((one, other), (other, one)):
            if peer.eof_in:
                self.on_eof(peer)
            peer.read(not leg.blocked)

    def drain(self) -> None:
        """Only its two ends know when it is done."""

    def on_data(self, leg: Leg, data: Buffer) -> None:
        self._other[id(leg)].send(data)

    def on_eof(self, leg: Leg) -> None:
        other = self._other[id(leg)]
        other.cut_out = leg.cut_in
        other.eof()

    def on_reset(self, leg: Leg) -> None:
        self._other[id(leg)].reset()

    on_failed = on_reset

    def on_open(self, leg: Leg) -> None:
        return

    def on_blocked(self, leg: Leg) -> None:
        self._other[id(leg)].read(False)

    def on_ready(self, leg: Leg) -> None:
        self._other[id(leg)].read(True)


class Whole:
    """All of the connection is one session's, if it takes it. A probe of the kubelet isn't."""

    def __init__(self, place: Place, client: Client, number: int, down: str, exempt: bool) -> None:
        self._place, self._client, self._down, self._exempt = place, client, down, exempt
        self._early: List[bytes] = []
        self._eof = self._failed = False
        client.passage = client.leg.owner = self
        self._program = place.to_session(self, number, client)
        client.leg.start()
        if self._program is None:
            place.loop.soon(self._not_taken)

    def drain(self) -> None:
        """It has a session still."""

    def on_open(self, leg: Leg) -> None:
        if self._early:
            self._take()

    def on_data(self, leg: Leg, data: Buffer) -> None:
        program = self._program
        if leg is self._client.leg:
            self._early.append(bytes(data))
            if self._failed:
                self._not_taken()
            elif self._exempt and is_probe(self._early[0]):
                if program is not None:
                    program.reset()
                self._pass()
            elif program is not None and program.open:
                self._take()
            else:
                leg.read(False)  # until it is known whose it is
        else:
            self._take()
            self._client.leg.send(data)

    def on_eof(self, leg: Leg) -> None:
        if leg is not self._client.leg or (self._program is not None and self._program.open):
            self._take()
        # else the leg remembers it

    def on_reset(self, leg: Leg) -> None:
        other = self._program if leg is self._client.leg else self._client.leg
        if other is not None:
            other.reset()

    def on_failed(self, leg: Leg) -> None:
        self._program = None
        self._not_taken()

    def on_blocked(self, leg: Leg) -> None:
        return

    def on_ready(self, leg: Leg) -> None:
        return

    def _take(self) -> None:
        assert self._program is not None
        self._join(self._program)

    def _pass(self) -> None:
        self._join(self._place.to_pod(self, self._client))

    def _join(self, leg: Leg) -> None:
        for data in self._early:
            leg.send(data)
        self._client.passage = Spliced(self._client.leg, leg)

    def _not_taken(self) -> None:
        client = self._client.leg
        if client.over or self._client.passage is not self:
            return
        if self._down == "pass":
            self._pass()
        elif not self._early and not client.eof_in and not self._failed:
            self._failed = True
            client.read(True)
            self._place.loop.later(FIRST_BYTES, self._not_taken)
        elif self._early and self._early[0].startswith(_METHODS):
            client.send(_DOWN)
            client.dismiss(LINGER)
        else:
            client.reset()


def is_probe(data: bytes) -> bool:
    """Is this the beginning of an HTTP/1.1 probe of the kubelet?"""
    return data.startswith(b"GET ") and _PROBE in data[:4096].lower()
