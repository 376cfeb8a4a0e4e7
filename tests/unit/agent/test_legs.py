"""The ends of an intercepted connection, on real sockets: every order in which two sides can end, and what is queued meanwhile."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from sidestage.agent.legs import HIGH, SocketLeg
from sidestage.agent.passage import Spliced
from sidestage.stream.loop import Loop

RST = struct.pack("ii", 1, 0)


class Pair:
    """client <-> leg, spliced with leg <-> server."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.client, ours = connected()
        self.server, theirs = connected()
        self.legs = SocketLeg(self.loop, None, -1, ours), SocketLeg(self.loop, None, 0, theirs)
        for leg in self.legs:
            leg.start()
        Spliced(*self.legs)

    def turn(self, until: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline
            self.loop.later(0.005, self.loop.stop)
            self.loop.run()

    def close(self) -> None:
        for leg in self.legs:
            leg.reset()
        self.client.close()
        self.server.close()


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    for sock in (one, other):
        sock.setblocking(False)
    return one, other


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def read(sock: socket.socket) -> bytes | None:
    """What is there; b"" at the end, None if nothing."""
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return None


def heard(pair: Pair, sock: socket.socket) -> bytes:
    """What comes there next."""
    got: list[bytes | None] = [None]

    def look() -> bool:
        got.append(read(sock))
        return got[-1] is not None

    pair.turn(look)
    return got[-1] or b""


ACTS = ("half", "send", "half other", "send other")


@pytest.mark.parametrize("order", list(itertools.permutations(ACTS)), ids=" ".join)
def test_ends_arrive_in_the_order_of_the_acts(pair: Pair, order: tuple[str, ...]) -> None:
    ended: set[str] = set()
    for act in order:
        kind, _, which = act.partition(" ")
        sock, peer = (pair.server, pair.client) if which else (pair.client, pair.server)
        if kind == "half":
            sock.shutdown(socket.SHUT_WR)
            ended.add(which)
            assert heard(pair, peer) == b""
        elif which not in ended:
            sock.send(b"words")
            assert heard(pair, peer) == b"words"
    pair.turn(lambda: all(leg.over for leg in pair.legs))


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("before", ["", "data", "half", "paused"])
def test_a_reset_is_a_reset_on_the_other_side(pair: Pair, who: str, before: str) -> None:
    sock, peer = (pair.client, pair.server) if who == "client" else (pair.server, pair.client)
    if before == "data":
        sock.send(b"some")
    elif before == "half":
        peer.shutdown(socket.SHUT_WR)
        pair.turn(lambda: read(sock) == b"")
    elif before == "paused":
        pair.legs[0 if who == "client" else 1].read(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()
    pair.turn(lambda: all(leg.over for leg in pair.legs))
    with pytest.raises(ConnectionResetError):
        while True:
            peer.recv(100)


def test_nothing_is_read_that_nobody_takes(pair: Pair) -> None:
    """The server takes nothing: the client's bytes stay with the client, beyond what the queue and the kernel hold."""
    sent = 0
    for _ in range(400):
        try:
            sent += pair.client.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        pair.turn(lambda: True)
        pair.loop.later(0, pair.loop.stop)
        pair.loop.run()
    assert pair.legs[1].blocked
    assert pair.legs[1]._queued <= HIGH + (64 << 10)
    got = 0

    def drain() -> bool:
        nonlocal got
        got += len(read(pair.server) or b"")
        return got == sent

    pair.turn(drain, 20)
    assert not pair.legs[1].blocked


def test_a_dismissed_leg_delivers_its_queue_and_closes(pair: Pair) -> None:
    data = bytes(3 << 20)
    pair.legs[1].send(data)
    pair.legs[1].dismiss(30)
    got = 0

    def drain() -> bool:
        nonlocal got
        part = read(pair.server)
        got += len(part or b"")
        return part == b""

    pair.turn(drain, 20)
    assert got == len(data)
    pair.server.close()
    pair.turn(lambda: pair.legs[1].over)
