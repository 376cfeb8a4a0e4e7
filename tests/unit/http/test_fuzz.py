"""Whatever comes: it is split alike in whatever pieces, and h11 agrees with what each program is given, or POD has it all."""

from __future__ import annotations

import itertools
import random
from typing import Any

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as s
from tests.testkit.h2net import World, fields
from tests.testkit.route import Play, rule

from sidestage.http import http2
from sidestage.http.orders import CLIENT, POD
from sidestage.http.router import Router

ME: dict[str, Any] = {"header": "^x-user: me$"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
BODIES = [
    b"\r\n",
    b"Content-Length: 5\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nT: 1\r\n\r\n",
    b"Content-Length: 0\r\n\r\n",
]
ODD = [
    b"Content-Length: 5\r\nContent-Length: 3\r\n\r\nhello",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length : 5\r\n\r\nhello",
    b"X: y\r\n z\r\n\r\n",
    b"X: y\nContent-Length: 3\r\n\r\nabc",
    b"X: \0\r\n\r\n",
    b"Content-Length: +1\r\n\r\na",
    b"Transfer-Encoding: gzip\r\n\r\nabc",
    b"Transfer-Encoding: chunked\r\n\r\nZ\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloooo",
    b"Connection: close\r\n\r\n",
    b"\n\n",
    b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n",
]
request = s.builds(
    lambda method, user, body: method + b" /a HTTP/1.1\r\nHost: x\r\n" + user + body,
    s.sampled_from([b"GET", b"POST", b"HEAD"]),
    s.sampled_from([b"X-User: me\r\n", b"X-User: no\r\n", b""]),
    s.sampled_from(BODIES),
)
odd = s.builds(
    lambda user, body: b"POST /a HTTP/1.1\r\nHost: x\r\n" + user + body,
    s.sampled_from([b"X-User: me\r\n", b""]),
    s.sampled_from(ODD),
)
stream = s.lists(request | request | request | odd | s.binary(max_size=12), max_size=6).map(b"".join)
mutated = s.builds(
    lambda data, at, byte: data[: at % (len(data) or 1)] + bytes([byte]) + data[at % (len(data) or 1) + 1 :],
    stream, s.integers(0, 10**6), s.sampled_from(b"\r\n\0 :;0159abX\t-") | s.integers(0, 255),
)  # fmt: skip


class Programs:
    """h11 reads what each program is given, and answers each request when it is complete."""

    def __init__(self) -> None:
        self.play = Play([rule(**ME)])
        self.servers: dict[int, h11.Connection] = {}
        self.users: dict[int, list[bytes]] = {POD: [], 1: []}
        self.given: dict[int, bytes] = {POD: b"", 1: b""}
        self.method: dict[int, bytes] = {}
        self.lost: set[int] = set()  # of whom h11 reads no further

    def client(self, part: bytes) -> None:
        play = self.play
        if play.spliced is None and not play.over:
            play.client(part)
        else:
            to = play.spliced
            if to is not None:
                play.sent[to] = play.sent.get(to, b"") + part
        while self.turn():
            pass

    def turn(self) -> bool:
        moved = False
        for to in (POD, 1):
            data = self.play.take(to)
            self.given[to] += data
            if not data or to in self.lost:
                continue
            moved = True
            if to not in self.servers:
                self.servers[to] = h11.Connection(h11.SERVER)
            self.servers[to].receive_data(data)
            self.read(to)
        return moved

    def read(self, to: int) -> None:
        conn, play = self.servers[to], self.play
        try:
            while True:
                event = conn.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    if conn.our_state is h11.MUST_CLOSE or str(conn.their_state) == "MIGHT_SWITCH_PROTOCOL":
                        self.lost.add(to)
                    return
                if isinstance(event, h11.Request):
                    self.users[to] += [value for name, value in event.headers if name == b"x-user"] or [b""]
                    self.method[to] = event.method
                elif isinstance(event, h11.EndOfMessage):
                    if conn.our_state is h11.SEND_RESPONSE:
                        conn.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
                        if self.method[to] != b"HEAD":
                            conn.send(h11.Data(data=b"hi"))
                        conn.send(h11.EndOfMessage())
                    if play.spliced is None and not play.over and to in play.open:
                        play.peer(to, OK if self.method[to] != b"HEAD" else OK[:-2])
                    if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                        self.lost.add(to)
                        return
                    conn.start_next_cycle()
        except h11.RemoteProtocolError:
            self.lost.add(to)
            if to != POD:
                assert play.spliced == POD or play.over, "a session was given what h11 can't read"


def run(data: bytes, cuts: list[int]) -> Programs:
    programs = Programs()
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            programs.client(data[start:end])
    return programs


@settings(max_examples=400, deadline=None)
@given(stream | mutated, s.lists(s.integers(0, 10**6), max_size=8))
@example(b"POST /a HTTP/1.1\r\nHost: x\r\nX-User: me\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloooo", [90])
def test_one_in_whatever_pieces(data: bytes, cuts: list[int]) -> None:
    whole, sliced = run(data, []), run(data, cuts)
    one, other = whole.play, sliced.play
    assert (one.spliced, one.over) == (other.spliced, other.over)
    assert whole.given[POD] == sliced.given[POD]
    if one.spliced is None:  # else what a session was given before it broke depends on when it broke
        assert whole.given[1] == sliced.given[1]
        assert one.sent.get(CLIENT) == other.sent.get(CLIENT)
    for programs in (whole, sliced):
        assert set(programs.users[1]) <= {b"me"}
        if programs.play.spliced is None:
            assert b"me" not in programs.users[POD]


@settings(max_examples=300, deadline=None)
@given(s.binary(max_size=400), s.lists(s.integers(1, 60), min_size=1, max_size=10))
def test_any_bytes_to_both_sides(data: bytes, sizes: list[int]) -> None:
    """No exception, and nothing is lost on the way to POD."""
    play = Play([rule(**ME)])
    got = b""
    at = 0
    for number in range(200):
        size = sizes[number % len(sizes)]
        part, at = data[at : at + size], at + size
        if not part or play.over:
            break
        play.client(part) if number % 3 else play.peer(POD, part)
        got += b"" if number % 3 == 0 else part
    if play.spliced == POD and play.log == ["open 0", "splice 0"]:
        assert play.pod == got


frames = s.lists(
    s.builds(
        lambda kind, flags, stream, payload: http2.frame(kind, flags, stream, payload),
        s.integers(0, 17), s.integers(0, 255) | s.sampled_from([0, 1, 4, 5]), s.sampled_from([0, 1, 2, 3, 5, 7]),
        s.binary(max_size=30) | s.sampled_from([b"\x82\x86\x84\x41\x01x", b"\0\0\0\1", bytes(8), b"\0\3\0\0\0\1"]),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(frames, frames, frames, s.booleans())
def test_any_frames_from_any_side(client: list[bytes], pod: list[bytes], mine: list[bytes], diverted: bool) -> None:
    w = World([rule(**ME)])
    w.ask(fields("/", x_user="me") if diverted else fields("/"))
    router = w.router
    w.do = lambda orders: None  # type: ignore[method-assign]
    router.client(w.client.conn.data_to_send())
    sides = [(client, router.client), (pod, lambda data: router.peer(POD, data)), (mine, lambda data: router.peer(1, data))]
    rng = random.Random(len(client) + 7 * len(pod))
    if diverted:
        router.peer(1, http2.settings({}))
    while any(side for side, _ in sides) and not router.done:
        side, enter = rng.choice(sides)
        if side:
            enter(side.pop(0))
    for end in (router.timeout, router.client_eof, lambda: router.peer_reset(1), lambda: router.peer_eof(POD), router.client_reset):
        if not router.done:
            end()


def test_a_flood_of_any_kind_is_bounded() -> None:
    """What the router keeps of a client that sends and never reads is bounded, whatever it sends."""
    c = http2.PREFACE + http2.settings({})
    block = bytes.fromhex("828684410178") + b"\x00\x06x-user\x02me"
    floods = {
        "continuations": http2.frame(http2.HEADERS, 0, 1, block) + http2.frame(http2.CONTINUATION, 0, 1, b"") * 100_000,
        "long block": http2.frame(http2.HEADERS, 0, 1, block) + http2.frame(http2.CONTINUATION, 0, 1, bytes(16384)) * 100,
        "streams": b"".join(http2.frame(http2.HEADERS, 4, number, block) for number in range(1, 40_001, 2)),
        "resets": b"".join(
            http2.frame(http2.HEADERS, 4, number, block) + http2.reset(number, 8) for number in range(1, 40_001, 2)
        ),
        "data": http2.frame(http2.HEADERS, 4, 1, block) + http2.frame(http2.DATA, 0, 1, bytes(16384)) * 1000,
    }  # fmt: skip
    for name, flood in floods.items():
        router = Router([rule(**ME)])
        router.start()
        router.client(c)
        router.client(http2.frame(http2.HEADERS, 5, 40_003, block) if name in ("continuations", "long block") else b"")
        asked = 0
        for at in range(0, len(flood), 16384):
            for order in router.client(flood[at : at + 16384]) if not router.done else []:
                asked += getattr(order, "to", None) == 1
        route = router._route
        kept = sum(len(getattr(route, key, b"") or b"") for key in ("_pending", "_pod_pending", "_buffer"))
        kept += getattr(route, "_queued", 0)
        assert kept < 6 << 20, name
        assert len(getattr(route, "_streams", ())) <= 21_000, name
        if name == "resets":
            assert asked < 2000, name  # rapid reset: soon they are the target's own
