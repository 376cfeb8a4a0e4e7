"""HTTP/1.1 answers: whole, byte by byte, broken and endless; the only errors are OSErrors."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidestage.cluster.http import MAX_HEAD, Closed, Head, Http, HttpError, whole

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: x\r\n\r\n"


@contextmanager
def answering(answer: bytes, step: int = 1 << 20, end: bool = True) -> Iterator[tuple[Http, socket.socket]]:
    ours, theirs = socket.socketpair()

    def write() -> None:
        try:
            for at in range(0, len(answer), step):
                theirs.sendall(answer[at : at + step])
            if end:
                theirs.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield Http(ours), theirs
    finally:
        ours.close()
        thread.join()
        theirs.close()


def ask(http: Http, method: str = "GET", timeout: float = 5) -> tuple[Head, bytes]:
    head = http.send(method, "/x", [("Host", "h")], b"", timeout)
    return head, whole(http.body(head, method))


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "answer, status, body, keep",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
        (CHUNKED, 200, b"Wikipedia", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
        (b"HTTP/1.1 204 \r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, b"", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\na", 200, b"a", True),
    ],
)
def test_answers(answer: bytes, status: int, body: bytes, keep: bool, step: int) -> None:
    with answering(answer, step) as (http, _):
        head, got = ask(http)
        assert (head.status, got, http.keep) == (status, body, keep)


def test_one_answer_after_the_other() -> None:
    with answering(CHUNKED + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb", 3) as (http, _):
        assert ask(http)[1] == b"Wikipedia"
        assert ask(http)[1] == b"b"
        with pytest.raises(Closed):
            ask(http)


def test_what_comes_behind_the_head_of_an_upgrade_is_kept() -> None:
    with answering(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x82\x01a", end=False) as (http, _):
        assert http.send("GET", "/", [], b"", 5).status == 101
        assert http.leftover() == b"\x82\x01a"
        assert http.leftover() == b""


def test_the_request_is_as_asked() -> None:
    with answering(b"HTTP/1.1 204 X\r\n\r\n") as (http, theirs):
        http.send("POST", "/p?q=1", [("Host", "h"), ("Content-Length", "2")], b"ab", 5)
        assert theirs.recv(1000) == b"POST /p?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"


def test_a_header_can_not_smuggle_another() -> None:
    with answering(b"") as (http, _), pytest.raises(HttpError, match="line break"):
        http.send("GET", "/", [("Authorization", "Bearer a\r\nX: y")], b"", 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc X\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_HEAD + 10), b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD,
    ],
)  # fmt: skip
def test_broken_answers_are_errors(answer: bytes) -> None:
    with answering(answer) as (http, _), pytest.raises(HttpError):
        ask(http)


def test_the_time_out_is_of_the_whole_answer() -> None:
    """Bytes that trickle in do not prolong it."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.05):
            theirs.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(Http(ours), timeout=0.5)
        assert time.monotonic() - started < 20
    finally:
        stop.set()
        thread.join()
        ours.close()
        theirs.close()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_an_answer_or_an_oserror(data: bytes, step: int) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data, step) as (http, _):
        try:
            ask(http)
        except OSError:
            pass
