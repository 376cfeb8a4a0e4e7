"""Exchanges read from bytes: tables for HTTP/1, a real peer's bytes for HTTP/2, cut anywhere, and nonsense."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidestage.exchange.model import LOCAL, TARGET, Exchange
from sidestage.exchange.observer import Observer


class Told:
    def __init__(self, sides: tuple[str, ...] = (TARGET, LOCAL)) -> None:
        self.exchanges: list[Exchange] = []
        self.done: list[tuple[int, str]] = []
        self.observer = Observer(self, sides)

    def __call__(self, what: str, exchange: Exchange, side: str) -> None:
        if what == "request":
            self.exchanges.append(exchange)
        elif what == "done":
            self.done.append((self.exchanges.index(exchange), side))

    def said(self) -> list[Any]:
        return [
            (e.method, e.path, bytes(e.body.data), {s: (a.status, bytes(a.body.data), a.done) for s, a in e.answers.items()})
            for e in self.exchanges
        ]


GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\n0\r\nX-T: 1\r\n\r\n"
CASES: dict[str, tuple[bytes, bytes, list[Any]]] = {
    "one": (GET, OK, [("GET", "/a?b", b"", (200, b"ok", True))]),
    "pipelined": (
        GET + POST + CHUNKED, OK + NO + OK,
        [
            ("GET", "/a?b", b"", (200, b"ok", True)), ("POST", "/p", b"abc", (404, b"no", True)),
            ("POST", "/c", b"abc", (200, b"ok", True)),
        ],
    ),
    "interim": (POST, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, [("POST", "/p", b"abc", (200, b"ok", True))]),
    "HEAD": (
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + OK,
        [("HEAD", "/", b"", (200, b"", True)), ("GET", "/a?b", b"", (200, b"ok", True))],
    ),
    "until the end": (GET, b"HTTP/1.0 200 OK\r\n\r\nall", [("GET", "/a?b", b"", (200, b"all", True))]),
    "upgrade": (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi",
        [("GET", "/ws", b"", (101, b"", True))],
    ),
    "no HTTP": (b"\x16\x03\x01 hello", b"whatever", []),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", OK, []),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("name", CASES)
def test_http1(name: str, step: int) -> None:
    client, server, want = CASES[name]
    told = Told()
    for at in range(0, len(client), step):
        told.observer.client(client[at : at + step])
    for side in (TARGET, LOCAL):
        for at in range(0, len(server), step):
            told.observer.answer(side, server[at : at + step])
        told.observer.answer_eof(side)
    assert told.said() == [(*head, {TARGET: answer, LOCAL: answer}) for *head, answer in want]


def test_answers_may_overtake_their_requests() -> None:
    told = Told((TARGET,))
    told.observer.answer(TARGET, OK)
    told.observer.client(GET)
    told.observer.answer(TARGET, NO)
    told.observer.client(GET)
    assert [status for *_, answers in told.said() for status, *_ in answers.values()] == [200, 404]


def test_one_side_may_be_lost() -> None:
    told = Told()
    told.observer.client(GET)
    told.observer.lost(TARGET)
    told.observer.answer(TARGET, b"rest of something")
    told.observer.answer(LOCAL, OK)
    told.observer.client(GET)
    told.observer.answer(LOCAL, OK)
    assert told.done == [(0, LOCAL), (1, LOCAL)]


def h2_bytes() -> tuple[bytes, bytes]:
    """Three requests as the library h2 sends them, the second with a body and trailers; and their answers, out of order."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    up, down = client.data_to_send(), server.data_to_send()
    server.receive_data(up)
    client.receive_data(down)

    def head(method: str, path: str) -> list[tuple[str, str]]:
        return [(":method", method), (":path", path), (":scheme", "http"), (":authority", "svc"), ("x-a", "1"), ("x-a", "1")]

    client.send_headers(1, head("GET", "/one"), end_stream=True)
    client.send_headers(3, head("POST", "/two"))
    client.send_data(3, b"abc")
    client.send_headers(3, [("x-sum", "9")], end_stream=True)
    client.send_headers(5, head("GET", "/three"), end_stream=True)
    more = client.data_to_send()
    server.receive_data(more)
    for stream, status in ((5, "200"), (1, "404"), (3, "200")):
        server.send_headers(stream, [(":status", status), ("content-type", "text/plain")])
        server.send_data(stream, b"to " + str(stream).encode())
        server.send_headers(stream, [("grpc-status", "0")], end_stream=True)
    return up + more, down + server.data_to_send()


@pytest.mark.parametrize("step", [1, 13, 10_000])
def test_http2(step: int) -> None:
    client, server = h2_bytes()
    told = Told()
    for at in range(0, len(client), step):
        told.observer.client(client[at : at + step])
    for side in (TARGET, LOCAL):
        for at in range(0, len(server), step):
            told.observer.answer(side, server[at : at + step])
    answers = [(404, b"to 1", True), (200, b"to 3", True), (200, b"to 5", True)]
    heads = [("GET", "/one", b""), ("POST", "/two", b"abc"), ("GET", "/three", b"")]
    assert told.said() == [(*head, {TARGET: a, LOCAL: a}) for head, a in zip(heads, answers, strict=True)]
    assert [number for number, side in told.done if side == LOCAL] == [2, 0, 1]
    assert told.exchanges[1].answers[TARGET].trailers == [("grpc-status", "0")]
    assert told.exchanges[0].host == "svc"


@given(st.lists(st.tuples(st.sampled_from(["client", TARGET, LOCAL]), st.binary(max_size=80)), max_size=20))
@settings(deadline=None)
def test_nonsense_ends_the_observation_and_nothing_else(parts: list[tuple[str, bytes]]) -> None:
    told = Told()
    for who, data in parts:
        told.observer.client(data) if who == "client" else told.observer.answer(who, data)


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
@settings(deadline=None)
def test_one_wrong_byte_in_http2_does_no_harm(at: int, byte: int, up: bool) -> None:
    client, server = (bytearray(data) for data in h2_bytes())
    changed = client if up else server
    changed[at % len(changed)] = byte
    told = Told()
    told.observer.client(bytes(client))
    told.observer.answer(TARGET, bytes(server))
