"""Frames of HTTP/2, to a real server directly and through the router: the same answers on every stream."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hpack
import pytest

from sidestage.http import http2
from sidestage.http.filters import Filter
from sidestage.http.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings,
    window_update,
)
from sidestage.http.orders import Rule
from tests.testkit.http_servers import lacking, running
from tests.testkit.http_shell import Shell

pytestmark = pytest.mark.skipif(bool(lacking()), reason="servers to compare with are not here")
SILENCE, PATIENCE = 1.0, 3.0
START = PREFACE + settings({http2.INITIAL_WINDOW: 1 << 20}) + window_update(0, 1 << 24)
VARIES = {b"date", b"last-modified", b"etag"}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with running(tmp_path_factory.mktemp("servers")) as ports:
        yield ports


class Client:
    """Writes frames, with an encoder of its own."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.out = START

    def block(self, path: str = "/", method: str = "GET", extra: list[tuple[str, str]] = [], **pseudo: str) -> bytes:  # noqa: B006
        fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "x", **pseudo}
        return bytes(self.encoder.encode([*fields.items(), *extra]))

    def get(self, stream: int, path: str = "/", **more: Any) -> Client:
        return self.add(frame(HEADERS, END_HEADERS | END_STREAM, stream, self.block(path, **more)))

    def post(self, stream: int, body: bytes, path: str = "/", size: int = 16384, **more: Any) -> Client:
        self.add(frame(HEADERS, END_HEADERS, stream, self.block(path, "POST", **more)))
        parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        for number, part in enumerate(parts):
            self.add(frame(DATA, END_STREAM if number == len(parts) - 1 else 0, stream, part))
        return self

    def add(self, raw: bytes) -> Client:
        self.out += raw
        return self


def valid() -> dict[str, bytes]:
    found = {
        "one": Client().get(1),
        "gap": Client().get(1).get(9).get(11),
        "many": Client(),
        "paths": Client(),
        "big": Client().get(1, "/big").get(3),
        "body": Client().post(1, b"hello"),
        "empty body": Client().post(1, b""),
        "long body": Client().post(1, b"z" * 60000),
        "small frames": Client().post(1, b"z" * 900, size=9),
        "ping": Client().add(frame(PING, 0, 0, b"12345678")).get(1),
        "head": Client().get(1, method="HEAD"),
        "options": Client().get(1, method="OPTIONS").get(3, method="DELETE"),
    }
    for stream in range(1, 101, 2):
        found["many"].get(stream, f"/{stream}", extra=[("x-n", str(stream // 2 % 4)), ("x-same", "again and again")])
    for stream, path in enumerate(["/", "/a?b=c", "/204", "/chunked", "/file", "/%41", "/a;b", "//a", "/" + "p" * 3000]):
        found["paths"].get(2 * stream + 1, path, extra=[("x-n", str(stream))])
    c = Client()
    raw = c.block(extra=[("x-long", "y" * 9000)])
    found["continuations"] = c.add(frame(HEADERS, END_STREAM, 1, raw[:10]))
    for at in range(10, len(raw), 1000):
        c.add(frame(CONTINUATION, END_HEADERS if at + 1000 >= len(raw) else 0, 1, raw[at : at + 1000]))
    c = Client()
    c.add(frame(HEADERS, END_HEADERS | PADDED, 1, b"\5" + c.block("/", "POST") + bytes(5)))
    c.add(frame(DATA, PADDED, 1, b"\xff" + b"hello" + bytes(255)))
    found["padded"] = c.add(frame(DATA, END_STREAM | PADDED, 1, b"\0 world")).get(3)
    c = Client()
    found["priority"] = c.add(frame(PRIORITY, 0, 3, struct.pack("!IB", 1, 9))).add(
        frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, struct.pack("!IB", 0, 200) + c.block())).get(3).add(
        frame(PRIORITY, 0, 1, struct.pack("!IB", 3, 9)))  # fmt: skip
    c = Client()
    c.add(frame(HEADERS, END_HEADERS, 1, c.block("/", "POST", extra=[("te", "trailers")]))).add(frame(DATA, 0, 1, b"hello"))
    found["trailers"] = c.add(frame(HEADERS, END_HEADERS | END_STREAM, 1, c.encoder.encode([("x-trailer", "1")]))).get(3)
    c = Client()
    for stream in (1, 3, 5):
        c.add(frame(HEADERS, END_HEADERS, stream, c.block(f"/{stream}", "POST", extra=[("x-n", str(stream))])))
    for turn in range(4):
        for stream in (5, 1, 3):
            c.add(frame(DATA, END_STREAM if turn == 3 else 0, stream, b"%d" % stream * 500))
    found["interleaved"] = c
    c = Client().get(1)
    c.encoder.header_table_size = 0
    c.get(3, extra=[("x-n", "1")])
    c.encoder.header_table_size = 4096
    found["table sizes"] = c.get(5, extra=[("x-n", "1")]).get(7, extra=[("x-n", "1")])
    found["taken back"] = Client().get(1).add(frame(RST_STREAM, 0, 1, struct.pack("!I", 8))).get(3, extra=[("x-n", "1")]).get(5)
    found["settings again"] = Client().get(1).add(settings({http2.INITIAL_WINDOW: 2 << 20, http2.FRAME_SIZE: 1 << 15}))
    found["settings again"].get(3, "/big")
    found["unknown frames"] = Client().add(frame(99, 0, 0, b"abc")).get(1).add(frame(250, 7, 1, b"abc")).get(3)
    found["empty data"] = Client().add(b"").post(1, b"")
    found["cookies"] = Client().get(1, extra=[("cookie", "a=b"), ("cookie", "c=d"), ("x-n", "1")])
    found["authority and host"] = Client().get(1, extra=[("host", "x")])
    rng = random.Random(3)
    for number in range(40):
        c = Client()
        for stream in range(1, 2 * rng.randint(2, 12), 2):
            extra = [("x-n", str(rng.randrange(4))), (f"x-{rng.randrange(3)}", "v" * rng.randrange(50))]
            if rng.random() < 0.5:
                c.get(stream, rng.choice(["/", "/a?b", "/big", "/204"]), extra=extra)
            else:
                c.post(stream, b"b" * rng.randrange(3000), extra=extra, size=rng.choice([7, 500, 16384]))
        found[f"random {number}"] = c
    return {name: client.out for name, client in found.items()}


def broken() -> dict[str, bytes]:
    """In the spirit of h2spec: each breaks one rule; after a good request on stream 1."""
    def good() -> Client:
        return Client().get(1)

    head = END_HEADERS | END_STREAM
    found: dict[str, Client] = {
        "even stream": good().get(2),
        "lower stream": good().get(5).get(3),
        "stream 0": good().get(0),
        "same stream": good().get(1),
        "data of none": good().add(frame(DATA, 0, 5, b"x")),
        "data of 0": good().add(frame(DATA, 0, 0, b"x")),
        "reset of none": good().add(frame(RST_STREAM, 0, 9, bytes(4))),
        "reset of 0": good().add(frame(RST_STREAM, 0, 0, bytes(4))),
        "short reset": good().post(3, b"").add(frame(RST_STREAM, 0, 3, bytes(3))),
        "no window": good().add(window_update(0, 0)),
        "window of none": good().add(window_update(9, 1)),
        "windows": good().add(window_update(0, 2**31 - 1)),
        "short window": good().add(frame(WINDOW_UPDATE, 0, 0, bytes(3))),
        "short settings": good().add(frame(SETTINGS, 0, 0, bytes(5))),
        "settings of 1": good().add(frame(SETTINGS, 0, 1, b"")),
        "ack with more": good().add(frame(SETTINGS, 1, 0, bytes(6))),
        "initial window": good().add(settings({http2.INITIAL_WINDOW: 2**31})),
        "frame size": good().add(settings({http2.FRAME_SIZE: 5})),
        "push": good().add(settings({http2.ENABLE_PUSH: 2})),
        "short ping": good().add(frame(PING, 0, 0, bytes(7))),
        "ping of 1": good().add(frame(PING, 0, 1, bytes(8))),
        "goaway of 1": good().add(frame(GOAWAY, 0, 1, bytes(8))),
        "goaway": good().add(frame(GOAWAY, 0, 0, bytes(8))),
        "promise": good().add(frame(PUSH_PROMISE, 4, 3, bytes(4))),
        "continuation": good().add(frame(CONTINUATION, 4, 3, b"")),
        "long frame": good().add(frame(DATA, 0, 1, bytes(20000))),
        "between": good().add(frame(HEADERS, END_STREAM, 3, b"\x82") + frame(PING, 0, 0, bytes(8))),
        "another's continuation": good().add(frame(HEADERS, END_STREAM, 3, b"\x82") + frame(CONTINUATION, 4, 5, b"\x84")),
        "padding": good().add(frame(DATA, PADDED, 1, b"\x09abc")),
        "padded head": good().add(frame(HEADERS, head | PADDED, 3, b"\x09abc")),
        "index": good().add(frame(HEADERS, head, 3, b"\xff\xff\xff\x0f")),
        "index 0": good().add(frame(HEADERS, head, 3, b"\x80")),
        "cut block": good().add(frame(HEADERS, head, 3, b"\x40\x05ab")),
        "table": good().add(frame(HEADERS, head, 3, b"\x3f\xff\xff\x03")),
        "upper case": good().get(3, extra=[("X-A", "b")]),
        "connection": good().get(3, extra=[("connection", "close")]),
        "te": good().get(3, extra=[("te", "gzip")]),
        "no path": good().add(frame(HEADERS, head, 3, b"\x82\x86")),
        "empty path": good().get(3, ""),
        "two methods": good().get(3, extra=[(":method", "PUT")]),
        "late pseudo": good().get(3, extra=[("x-a", "b"), (":scheme", "http")]),
        "unknown pseudo": good().get(3, extra=[(":foo", "b")]),
        "status": good().get(3, extra=[(":status", "200")]),
        "length": good().post(3, b"abc", extra=[("content-length", "5")]),
        "LF": good().get(3, extra=[("x-a", "b\nc")]),
        "no preface": Client(),
        "after the end": good().add(frame(DATA, 0, 1, b"x")),
        "priority of itself": good().add(frame(PRIORITY, 0, 3, struct.pack("!IB", 3, 1))),
        "short priority": good().add(frame(PRIORITY, 0, 3, bytes(4))),
        "empty block": good().add(frame(HEADERS, head, 3, b"")),
    }
    raw = {name: client.out for name, client in found.items()}
    raw["no preface"] = START[24:]
    raw["almost a preface"] = START[:20] + b"XX" + START[22:]
    raw["only a preface"] = PREFACE
    raw["half a preface"] = PREFACE[:10]
    return raw


Answer = tuple[dict[int, list[Any]], list[Any], str]


def exchange(address: tuple[str, int], data: bytes, silence: float = SILENCE) -> Answer:
    """What came on each stream, what was said of the connection, and how it ended."""
    decoder, splitter, blocks = hpack.Decoder(max_header_list_size=1 << 20), http2.Splitter(), http2.Blocks()
    splitter.limit = http2.MAX_FRAME
    streams: dict[int, list[Any]] = {}
    said: list[Any] = []
    end = "silent"
    with socket.create_connection(address, 10) as sock:
        sock.settimeout(silence)
        try:
            sock.sendall(data)
            while True:
                part = sock.recv(65536)
                if not part:
                    end = "ended"
                    break
                for each in splitter.feed(part):
                    block = blocks.feed(each)
                    got = streams.setdefault(each.stream, [b""])
                    if block:
                        pairs = decoder.decode(http2.fragment(block), raw=True)
                        got.append([(bytes(n), bytes(v)) for n, v in pairs if n not in VARIES])
                        got.append(bool(block[0].flags & END_STREAM))
                    elif block is not None and each.kind == DATA:
                        got[0] += each.content()
                        if each.flags & END_STREAM:
                            got.append("end")
                    elif each.kind == RST_STREAM:
                        got.append(("reset", each.number()))
                    elif each.kind == GOAWAY:
                        said.append(("goaway", int.from_bytes(each.payload[4:8], "big")))
                    elif each.kind == PING:
                        said.append(("ping", each.flags))
        except TimeoutError:
            pass
        except (OSError, http2.BrokenFrame) as error:
            end = "ended" if isinstance(error, OSError) else repr(error)
    for got in streams.values():
        if ("reset", 0) in got and "end" in got:
            got.remove(("reset", 0))  # "you need not send the rest": of a request that had ended by then
    return {stream: got for stream, got in streams.items() if stream and got != [b""]}, said, end


# nginx 1.22 ends the connection for trailers of a stream that it has answered; a session's is another connection.
QUIRKS = {("all a session's", "trailers")}
WAYS: dict[str, dict[str, Any]] = {
    "nobody's": {"header": "^x-user: nobody$"}, "all a session's": {"path": "."}, "by turns": {"header": "^x-n: [13]$"},
    "body": {"body": {"body": "json", "query": "$.x", "matches": "y"}},
}  # fmt: skip


def different(address: tuple[str, int], corpus: dict[str, bytes], ways: list[str]) -> list[str]:
    found = []
    with ThreadPoolExecutor(20) as pool:
        direct = dict(zip(corpus, pool.map(lambda data: exchange(address, data), corpus.values()), strict=True))
        for way in ways:
            with Shell([Rule(1, Filter(WAYS[way]))], {0: address, 1: address}) as shell:
                def twice(name: str, to: tuple[str, int] = shell.address) -> tuple[str, Answer, Answer]:
                    return name, exchange(address, corpus[name], PATIENCE), exchange(to, corpus[name], PATIENCE)

                through = dict(zip(corpus, pool.map(lambda data: exchange(shell.address, data), corpus.values()), strict=True))
                # Perhaps one of the two was slow. nginx ends a connection on which nobody asks: ours to it, here.
                doubtful = [name for name in corpus if through[name] != direct[name] and (way, name) not in QUIRKS]
                for name, one, other in pool.map(twice, doubtful):
                    if name == "taken back":  # how much the server had sent by then is its own race
                        one[0].pop(1, None)
                        other[0].pop(1, None)
                    if not alike(one, other):
                        found.append(f"{way}: {name}:\n  {str(one)[:900]}\n  {str(other)[:900]}")
    return found


def alike(direct: Answer, through: Answer) -> bool:
    if direct == through or (direct[0] == through[0] and not any(code for _, code in [*direct[1], *through[1]])):
        return True
    # Behind an error the connection is closed: how much of other streams is read before is a race of the server with itself.
    return "ended" == direct[2] == through[2] and set(direct[1]) == set(through[1])


@pytest.mark.parametrize("server", ["nginx2", "node2", "go2"])
@pytest.mark.timeout(300)
def test_answers_are_equal(server: str, ports: dict[str, int]) -> None:
    found = different(("127.0.0.1", ports[server]), valid(), list(WAYS))
    assert not found, "\n".join([str(len(found)), *found])


@pytest.mark.parametrize("server", ["nginx2", "node2", "go2"])
@pytest.mark.timeout(300)
def test_broken_frames_are_the_targets_to_judge(server: str, ports: dict[str, int]) -> None:
    found = different(("127.0.0.1", ports[server]), broken(), ["nobody's"])
    assert not found, "\n".join([str(len(found)), *found])
