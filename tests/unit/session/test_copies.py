"""Mirrored connections share their bounds: over real sockets, with a peer that does not read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from sidestage.session import copies
from sidestage.session.copies import Copies
from sidestage.stream.loop import Loop


class FakeLink:
    """What a pump asks of its link; keeps what it is told."""

    def __init__(self) -> None:
        self.consumed_bytes = 0
        self.resets: list[int] = []
        self.pumps: list[Any] = []

    def register(self, channel: int, handler: Any) -> None:
        self.pumps.append(handler)

    def writable(self, channel: int) -> int:
        return 0

    def consumed(self, channel: int, n: int) -> None:
        self.consumed_bytes += n

    def reset(self, channel: int) -> None:
        self.resets.append(channel)

    def forget(self, channel: int) -> None:
        return


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def begin(made: Copies, link: Any, channel: int, listener: socket.socket) -> socket.socket:
    """A connection that nobody reads: its other end."""
    sock = socket.create_connection(listener.getsockname())
    made.start(link, channel, 80, sock, None)
    return listener.accept()[0]


def test_what_is_not_taken_is_bounded_for_all_together(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MAX_KEPT", 4 << 20)
    dropped: list[int] = []
    link = FakeLink()
    made = Copies(Loop(), dropped.append)
    ends = [begin(made, link, channel, listener) for channel in (2, 4, 6)]
    for _ in range(40):
        for pump in link.pumps:
            if not pump._ended:
                pump.on_data(bytes(256 << 10))
        assert made.kept <= 4 << 20
    assert dropped, "ten MiB each, and nobody was dropped"
    assert made.open == 3 - len(dropped)
    assert len(link.resets) == len(dropped)
    for pump in link.pumps:
        pump.on_reset()
    assert (made.open, made.kept) == (0, 0)
    for end in ends:
        end.close()


def test_no_more_than_so_many_at_once(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MAX_OPEN", 1)
    dropped: list[int] = []
    made, link = Copies(Loop(), dropped.append), FakeLink()
    assert made.room(80)
    end = begin(made, link, 2, listener)
    assert not made.room(80)
    assert dropped == [80]
    link.pumps[0].on_reset()
    assert made.room(80)
    end.close()
