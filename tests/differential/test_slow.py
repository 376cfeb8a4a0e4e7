"""Clients that are slow, huge, or gone in the middle, to a real server directly and through the router: the answers are equal."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from sidestage.http.filters import Filter
from sidestage.http.orders import Rule
from tests.differential.test_http1 import DATE, END, PATIENCE, WAYS, alike, brief, exchange, request
from tests.testkit.http_servers import lacking, running
from tests.testkit.http_shell import Shell

pytestmark = pytest.mark.skipif(bool(lacking()), reason="servers to compare with are not here")
RST = struct.pack("ii", 1, 0)
Pieces = list[tuple[float, bytes | None]]  # each with the seconds before it; None is a reset


def corpus() -> dict[str, Pieces]:
    head = request(b"POST /b HTTP/1.1", b"Content-Length: 5")
    chunks = request(b"POST /b HTTP/1.1", b"Transfer-Encoding: chunked")
    fields = [b"A%d: %s" % (n, b"b" * 20) for n in range(1000)]
    return {
        "a head in parts": [(0, head[:3]), (0.7, head[3:20]), (0.7, head[20:-1]), (0.7, head[-1:] + b"hello" + END)],
        "a head that takes longer than is waited for": [(0, head[:20]), (11, head[20:] + b"hello" + END)],
        "a first line that takes longer": [(0, b"POST /b"), (1.2, head[7:] + b"hello" + END)],
        "a body byte by byte": [(0, head), *((0.3, b"%c" % byte) for byte in b"hello"), (0.3, END)],
        "chunks in parts": [(0, chunks + b"5"), (0.6, b"\r\nhel"), (0.6, b"lo\r\n0\r"), (0.6, b"\n\r\n" + END)],
        "the second request late": [(0, request()), (1.5, request(b"GET /chunked HTTP/1.1")), (0.7, END)],
        "a thousand fields": [(0, request(b"GET / HTTP/1.1", *fields) + END)],
        "as much as is read at all": [(0, request(b"GET / HTTP/1.1", b"A: " + b"b" * 65_000) + END)],
        "a path of 30 KiB": [(0, request(b"GET /" + b"p" * 30_000 + b" HTTP/1.1") + END)],
        "a reset within a head": [(0, head[:20]), (0.3, None)],
        "a reset within a body": [(0, head + b"he"), (0.3, None)],
        "a reset within chunks": [(0, chunks + b"5\r\nhe"), (0.3, None)],
        "a reset behind an answer": [(0, request()), (0.7, None)],
        "a reset while answers come": [(0, request(b"GET /big HTTP/1.1") * 5), (0.05, None)],
    }


CORPUS = corpus()


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with running(tmp_path_factory.mktemp("servers")) as ports:
        yield ports


def slowly(address: tuple[str, int], pieces: Pieces) -> tuple[bytes, str]:
    """All that comes back, and how it ended; after a reset of ours what the next client gets."""
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        got = b""
        try:
            for seconds, piece in pieces:
                time.sleep(seconds)
                if piece is None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    sock.close()
                    return exchange(address, [request() + END])
                sock.sendall(piece)
            while part := sock.recv(65536):
                got += part
            return DATE.sub(b"", got), "ended"
        except TimeoutError:
            return DATE.sub(b"", got), "silent"
        except OSError:
            return DATE.sub(b"", got), "reset"


@pytest.mark.timeout(300)
def test_answers_are_equal(ports: dict[str, int]) -> None:
    """All at once, as most of it is waiting."""
    servers = {name: ("127.0.0.1", ports[name]) for name in ("nginx", "node", "go", "uvicorn")}
    asked: dict[tuple[str, str, str], Future[tuple[bytes, str]]] = {}
    with ThreadPoolExecutor(len(CORPUS) * len(servers) * (len(WAYS) + 1)) as pool, contextlib.ExitStack() as stack:
        for server, address in servers.items():
            ways = {way: Shell([Rule(1, Filter(spec))], {0: address, 1: address}) for way, spec in WAYS.items()}
            addresses = {"direct": address, **{way: stack.enter_context(shell).address for way, shell in ways.items()}}
            for way, to in addresses.items():
                asked |= {(server, way, name): pool.submit(slowly, to, pieces) for name, pieces in CORPUS.items()}
        different = []
        for (server, way, name), answer in asked.items():
            one, other = asked[server, "direct", name].result(), answer.result()
            if not alike(one, other):
                different.append(f"{server}, {way}: {name}\n  {brief(one)}\n  {brief(other)}")
    assert not different, "\n".join([f"{len(different)} of {len(asked)}", *different])
