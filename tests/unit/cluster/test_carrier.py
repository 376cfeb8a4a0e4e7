"""The carrier as a real process, with a client that has one connection to give, or none."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sidestage.cluster import carrier, spdy
from sidestage.cluster.api import Upgraded
from sidestage.cluster.errors import ApiError, ClusterError
from sidestage.stream.loop import Loop


class Api:
    def __init__(self, given: socket.socket | ClusterError) -> None:
        self._given = given

    def upgrade_spdy(self, path: str, query: Any, protocol: str) -> Upgraded:
        if isinstance(self._given, ClusterError):
            raise self._given
        return Upgraded(self._given, protocol, b"")

    upgrade = upgrade_spdy


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))


class Carried:
    """A carrier, and the keeper's loop for as long as somebody waits."""

    def __init__(self, given: socket.socket | ClusterError) -> None:
        self.loop = Loop()
        session, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        others = children()  # of other tests
        with session, kept:
            self.sock = carrier.start(Api(given), kept.fileno(), debug=True)  # type: ignore[arg-type]
        self.orders = carrier.Orders(self.loop, self.sock)
        (self.pid,) = children() - others

    def bulk(self) -> tuple[str, socket.socket]:
        """(error, the session's end)"""
        ours, theirs = socket.socketpair()
        theirs.settimeout(20)
        told: list[str] = []

        def done(error: str) -> None:
            told.append(error)
            self.loop.stop()

        with ours:
            self.orders.bulk("/a/pod/portforward", 7, ours, done)
        timer = self.loop.later(20, self.loop.stop)
        self.loop.run()
        timer.cancel()
        assert len(told) == 1
        return told[0], theirs


@contextlib.contextmanager
def carried(given: socket.socket | ClusterError) -> Iterator[Carried]:
    made = Carried(given)
    try:
        yield made
    finally:
        made.sock.close()
        os.waitpid(made.pid, 0)  # by itself: its keeper is gone


def test_bytes_of_a_stream_come_out_at_the_port() -> None:
    near, far = socket.socketpair()
    far.settimeout(20)
    with far, carried(near) as one:
        near.close()
        error, stream = one.bulk()
        assert error == ""
        with stream, far.makefile("rb") as got:
            stream.sendall(b"hello")
            forward = spdy.Forward(7)
            hello = b"".join(forward.answers)
            assert got.read(len(hello)) == hello
            frames = b"".join(map(bytes, forward.wrap(b"hello")))
            assert got.read(len(frames)) == frames
            far.sendall(frames)  # the frames of both sides are the same
            assert stream.recv(99) == b"hello"
            one.orders.drop()
            assert stream.recv(99) == b"", "a lost agent's streams end"


@pytest.mark.parametrize(
    "given, said",
    [
        (ApiError(403, "Forbidden", "no"), "you may not create pods/portforward"),
        (ClusterError("no way through", ""), "no way through"),
    ],
)
def test_what_is_refused_is_told(given: ClusterError, said: str) -> None:
    with carried(given) as one:
        for _ in range(2):  # and it serves on
            error, stream = one.bulk()
            with stream:
                assert said in error
                assert stream.recv(99) == b""


def test_a_carrier_that_was_killed_is_told_of() -> None:
    with carried(ClusterError("no way through", "")) as one:
        os.kill(one.pid, signal.SIGKILL)
        for _ in range(2):
            error, stream = one.bulk()
            stream.close()
            assert error == "the process that carries it has ended"
