"""The mirror's filter: of a client's bytes, the requests that match, whole."""

from __future__ import annotations

import random
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from tests.testkit.h2net import fields
from tests.testkit.route import rule

from sidestage.http.sieve import Sieve

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
MINE = b"GET /b HTTP/1.1\r\nHost: x\r\nX-User: me\r\n\r\n"
CHUNKED = MINE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
SIZED = MINE[:-2] + b"Content-Length: 3\r\n\r\nabc"
SOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ME: dict[str, Any] = {"header": "^x-user: me$"}
JSON: dict[str, Any] = {"body": {"body": "json", "query": "$.user", "matches": "^me$"}}


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


ONE: list[tuple[dict[str, Any], bytes, bytes, bool]] = [
    (ME, GET + MINE + GET + CHUNKED + SIZED + GET, MINE + CHUNKED + SIZED, False),
    (ME, SIZED.replace(b"me", b"no") + MINE, MINE, False),
    (ME, GET[:-2] + SOCKET + b"\x81\x02hi", b"", False),
    (ME, MINE[:-2] + SOCKET + b"\x81\x02hi" + GET, MINE[:-2] + SOCKET + b"\x81\x02hi" + GET, False),
    (ME, GET[:-2] + SOCKET + MINE, MINE, False),  # the target didn't take it
    (ME, GET[:-2] + b"Connection: close\r\n\r\n" + MINE, b"", False),
    (ME, MINE[:-2] + b"Connection: close\r\n\r\n" + MINE, MINE[:-2] + b"Connection: close\r\n\r\n", False),
    (ME, MINE + MINE[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + MINE, MINE, True),
    (ME, b"\x16\x03\x01" + MINE, b"", True),
    (ME, b"", b"", False),
    (JSON, post(b'{"user": "me"}') + post(b'{"user": "you"}') + GET + post(b'{"user":"me"}'),
     post(b'{"user": "me"}') + post(b'{"user":"me"}'), False),
    (JSON, post(b'{"user": "me", "x": "' + b"y" * 70000 + b'"}') + post(b'{"user":"me"}'), post(b'{"user":"me"}'), False),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "data", "told", "lost"), ONE, ids=range(len(ONE)))
@pytest.mark.parametrize("step", [0, 1, 11])
def test_one(spec: dict[str, Any], data: bytes, told: bytes, lost: bool, step: int) -> None:
    sieve = Sieve([rule(**spec)])
    step = step or len(data) or 1
    assert b"".join(sieve.feed(data[at : at + step]) for at in range(0, len(data), step)) == told
    assert sieve.lost is lost


@pytest.mark.parametrize("step", [0, 1, 100])
def test_two(step: int) -> None:
    """What the library's client sends, and what its server understands of what is told."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=False))
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=False))
    client.initiate_connection()
    server.initiate_connection()
    rng = random.Random(5)
    want: dict[int, tuple[bytes, bytes]] = {}
    bodies: dict[int, bytes] = {}
    for number in range(40):
        stream = client.get_next_available_stream_id()
        mine = number % 3 == 1
        body = b"%d" % number * rng.randrange(40)
        client.send_headers(stream, fields(f"/{number}", **({"x_user": "me"} if mine else {"x_user": str(rng.randrange(3))})))
        bodies[stream] = body
        if mine:
            want[stream] = (b"/%d" % number, body)
        for other in rng.sample(sorted(bodies), min(2, len(bodies))):
            client.send_data(other, bodies.pop(other), end_stream=True)
    for stream, body in bodies.items():
        client.send_data(stream, body)
        client.send_headers(stream, [(b"x-trailer", b"1")], end_stream=True)
    data = client.data_to_send()
    sieve = Sieve([rule(**ME)])
    step = step or len(data)
    got: dict[int, tuple[bytes, bytes]] = {}
    ended = set()
    for at in range(0, len(data), step):
        for event in server.receive_data(sieve.feed(data[at : at + step])):
            if isinstance(event, h2.events.RequestReceived):
                assert event.stream_id is not None
                got[event.stream_id] = ({bytes(n): bytes(v) for n, v in event.headers or ()}[b":path"], b"")
            elif isinstance(event, h2.events.DataReceived):
                assert event.stream_id is not None
                path, had = got[event.stream_id]
                got[event.stream_id] = (path, had + (event.data or b""))
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
    assert got == want
    assert ended == set(want)
    assert not sieve.lost


def test_two_by_body() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=False))
    client.initiate_connection()
    for number, user in enumerate((b"me", b"you", b"me")):
        client.send_headers(2 * number + 1, fields("/", "POST"))
        client.send_data(2 * number + 1, b'{"user": "%s"}' % user, end_stream=True)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    events = server.receive_data(Sieve([rule(**JSON)]).feed(client.data_to_send()))
    assert [event.stream_id for event in events if isinstance(event, h2.events.StreamEnded)] == [1, 5]


def test_what_is_held_is_bounded() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    sieve = Sieve([rule(max_body=10_000_000, **JSON)])
    sieve.feed(client.data_to_send())
    for number in range(500):
        stream = 2 * number + 1
        client.send_headers(stream, fields("/", "POST"))
        client.outbound_flow_control_window = 1 << 20
        client.send_data(stream, b"x" * 10_000)
        sieve.feed(client.data_to_send())
        assert sieve._two is not None
        assert sieve._two._held <= 300_000
