"""A relay between real loopback sockets and a link that writes down what it is told."""

from __future__ import annotations

import errno
import functools
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sidestage.protocol.errors import ProtocolError
from sidestage.session import relay
from sidestage.session.relay import UdpRelay
from sidestage.stream.loop import Loop
from sidestage.trap.network import Network
from sidestage.views.answered import Answered

QUERY = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\2db\0\0\1\0\1"
SERVFAIL = struct.pack("!6H", 7, 0x8182, 1, 0, 0, 0) + QUERY[12:]


class FakeLink:
    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.full = False

    def carrier(self) -> FakeLink:
        return self

    def open(self, kind: str, args: dict[str, Any], handler: object, first: bytes = b"") -> int:
        if self.full:
            raise ProtocolError("too many channels at once", remote=False)
        self.said.append(("open", kind, args, first))
        return 9

    def send(self, channel: int, data: bytes, *, record: bool) -> None:
        assert record
        self.said.append(("send", channel, data))

    def writable(self, channel: int) -> int:
        return 1 << 20

    def consumed(self, channel: int, n: int) -> None:
        self.said.append(("consumed", channel, n))

    def reset(self, channel: int) -> None:
        self.said.append(("reset", channel))


class Place:
    """The program's socket, connected to a relay for `port` of the target, and a loop that is turned until something holds."""

    def __init__(self, port: int) -> None:
        self.loop, self.link, self.replies, self.heard = Loop(), FakeLink(), list[dict[str, Any]](), list[bytes]()
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        end.bind(("127.0.0.1", 0))
        self.address, self.end = end.getsockname(), end
        self.program = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.program.settimeout(10)
        self.program.connect(self.address)
        self.port, self.answered, self.refused = port, Answered(lambda: 0.0), list[UdpRelay]()

    def start(self) -> UdpRelay:
        def reply(errno: int = 0, **result: Any) -> None:
            self.replies.append({"errno": errno, **result})

        remote = ("10.1.2.3", self.port)
        links: Any = self.link
        def heard(data: Any) -> None:
            self.heard.append(bytes(data))

        return UdpRelay(self.loop, links, self.end, remote, reply, heard, Network(), None, self.answered, self.refused.append)

    def until(self, holds: Callable[[], object]) -> None:
        def look() -> None:
            if holds():
                self.loop.stop()
            else:
                self.loop.later(0.01, look)

        self.loop.later(0, look)
        guard = self.loop.later(20, self.loop.stop)
        self.loop.run()
        guard.cancel()
        assert holds()


Plug = Callable[[int], Place]


@pytest.fixture
def plug() -> Iterator[Plug]:
    made: list[Place] = []

    def plug(port: int) -> Place:
        made.append(Place(port))
        return made[-1]

    yield plug
    for place in made:
        place.end.close()
        place.program.close()


def test_a_query_travels_with_the_order_to_open(plug: Plug) -> None:
    place = plug(53)
    place.program.send(QUERY)  # before session has heard of the relay at all
    made = place.start()
    opened = ("open", "udp", {"host": "10.1.2.3", "port": 53}, QUERY)
    assert place.link.said == [opened]
    place.program.send(b"second")
    place.until(lambda: len(place.link.said) > 1)
    assert place.link.said == [opened, ("send", 9, b"second")]  # waits for no word of the first
    made.on_accepted({"local": ["10.1.2.9", 5]})
    made.on_data(memoryview(b"answer"))
    assert place.program.recv(100) == b"answer" and place.heard == [b"answer"]
    assert place.link.said[-1] == ("consumed", 9, 6)


def test_what_was_answered_lately_is_not_asked_again(plug: Plug) -> None:
    place = plug(53)
    place.program.send(QUERY)
    made = place.start()
    answer = QUERY[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + QUERY[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\x0a\0\0\7"
    made.on_data(memoryview(answer))
    assert place.program.recv(100) == answer
    said = list(place.link.said)
    place.program.send(b"\1\2" + QUERY[2:])
    place.until(lambda: _readable(place.program))
    assert place.program.recv(100) == b"\1\2" + answer[2:] and place.link.said == said
    assert place.heard == [answer, b"\1\2" + answer[2:]]
    made.on_data(memoryview(answer))  # answers nothing that was asked
    assert place.program.recv(100) == answer


@pytest.mark.parametrize("full", [True, False])
def test_where_no_name_server_can_be_asked_all_queries_fail_at_once(plug: Plug, full: bool) -> None:
    place = plug(53)
    place.link.full = full
    place.program.send(QUERY)
    made = place.start()
    if not full:
        made.on_refused(101, "")
    assert place.program.recv(100) == SERVFAIL
    place.program.send(QUERY)
    place.until(lambda: _readable(place.program))
    assert place.program.recv(100) == SERVFAIL


def test_other_ports_are_opened_first_and_the_result_is_told(plug: Plug) -> None:
    place = plug(5000)
    made = place.start()
    assert place.link.said == [("open", "udp", {"host": "10.1.2.3", "port": 5000}, b"")] and not place.replies
    made.on_accepted({"local": ["10.1.2.9", 5]})
    assert place.replies == [{"errno": 0, "local": ["10.1.2.9", 5]}]
    refused = plug(5000)
    refused.start().on_refused(101, "")
    assert refused.replies == [{"errno": 101}] and refused.end.fileno() < 0


def test_it_talks_to_one_socket_only(plug: Plug) -> None:
    place = plug(5000)
    place.start()
    place.program.send(b"mine")
    place.until(lambda: len(place.link.said) > 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"injected", place.address)
        place.program.send(b"more")
        place.until(lambda: len(place.link.said) > 2)
    assert [said[2] for said in place.link.said[1:]] == [b"mine", b"more"]


def test_it_lives_as_long_as_the_programs_socket(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CHECK", 0.02)
    place = plug(53)
    place.program.send(QUERY)
    made = place.start()
    place.until(lambda: made._checks > 5)
    assert place.end.fileno() >= 0
    copy = place.program.dup()  # as a child has it
    place.program.close()
    checks = made._checks
    place.until(lambda: made._checks > checks + 5)
    assert place.end.fileno() >= 0
    copy.close()
    place.until(lambda: place.end.fileno() < 0)
    assert place.link.said[-1] == ("reset", 9)


def test_a_relay_that_nobody_speaks_to_goes(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CHECK", 0.01)
    place = plug(53)
    made = place.start()
    place.until(lambda: place.end.fileno() < 0)
    assert made._checks == relay.UNUSED and place.link.said == []


def _readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_a_refused_datagram_is_an_error_of_the_programs_socket(plug: Plug) -> None:
    """By this kernel's own ICMP; and the relay hears the program again afterwards, and nothing of what was sent in its name."""
    place = plug(7)
    made = place.start()
    made.on_accepted({"local": ["10.1.2.9", 5]})
    for text in b"one", b"two":
        place.program.send(text)
        place.until(functools.partial(place.link.said.__contains__, ("send", 9, text)))
        made.on_refused(errno.ECONNREFUSED, "")
        assert place.refused.pop() is made
        made.refuse(place.program)
        with pytest.raises(ConnectionRefusedError):
            place.program.recv(9)
    assert [said for said in place.link.said if said[0] == "send"] == [("send", 9, b"one"), ("send", 9, b"two")]
    made.on_data(memoryview(b"late"))
    assert place.program.recv(9) == b"late"
