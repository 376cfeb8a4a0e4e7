"""One intercepted connection: whole to one session (whole.py), by request (routed.py), and in the end just spliced.

The client comes first: whatever the session's side does, a connection that can go to the target does. Nothing of it is lost
by then, as what was read for a session that did not take it is kept.
"""

from __future__ import annotations

import socket
from typing import Any, Callable, Dict, Optional, Protocol

from sidestage.agent.legs import Leg, SocketLeg
from sidestage.protocol.messages import Buffer
from sidestage.stream.loop import Loop

CLIENT, POD = -1, 0  # numbers of legs; the others are those of claims

LINGER = 30.0  # seconds for a client to close after us


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
