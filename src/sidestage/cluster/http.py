"""HTTP/1.1 as a client needs it for one API server: requests out, heads and bodies in. RFC 9112.

http.client would cost 18 ms of import, can't give back the bytes read beyond a WebSocket handshake, and times out by the read
instead of by the whole answer. Everything that the peer says is bounded.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_HEAD = 64 << 10  # bytes; the API server's own limit for ours is 1 MiB, its heads are below 2 KiB
MAX_BODY = 256 << 20  # bytes of one answer; lists are asked for in pages, far below
READ = 64 << 10
NO_BODY = (204, 304)


class HttpError(OSError):
    """The peer speaks no HTTP/1.1, or too much of it."""


class Closed(HttpError):
    """The connection ended before the first byte of an answer."""


@dataclass(slots=True)
class Head:
    status: int
    phrase: str
    headers: dict[str, str]  # names in lower case


class Http:
    """One connection; one request at a time. After the body it can be used again if `keep` says so."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.keep = True
        self._buffer = b""
        self._deadline = 0.0

    def close(self) -> None:
        self.keep = False
        self.sock.close()

    def leftover(self) -> bytes:
        """What was read beyond the head of an upgraded connection; it belongs to the new protocol."""
        data, self._buffer = self._buffer, b""
        return data

    def send(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, timeout: float) -> Head:
        """Ask, and read the answer's head; `timeout` bounds the whole answer. Raises OSError."""
        self._deadline = time.monotonic() + timeout
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1:
            raise HttpError("a header with a line break in it")
        self._wait()
        self.sock.sendall(text.encode("utf-8") + b"\r\n\r\n" + body)
        while (head := self._head()).status // 100 == 1 and head.status != 101:
            pass  # 100 Continue, 103 Early Hints
        return head

    def body(self, head: Head, method: str = "GET") -> Iterator[bytes]:
        """The pieces of the body, as they come (RFC 9112 6.3)."""
        connection = head.headers.get("connection", "").lower()
        if "close" in connection:
            self.keep = False
        if method == "HEAD" or head.status in NO_BODY:
            return
        if "chunked" in head.headers.get("transfer-encoding", "").lower():
            yield from self._chunks()
        elif "content-length" in head.headers:
            left = _number(head.headers["content-length"], 10)
            while left:
                piece = self._some(min(left, READ))
                left -= len(piece)
                yield piece
        elif not (method == "CONNECT" and head.status == 200):
            self.keep = False
            try:
                while True:
                    yield self._some(READ)
            except Closed:
                return

    def _chunks(self) -> Iterator[bytes]:
        while left := _number(self._line().partition(b";")[0].decode("latin-1"), 16):
            while left:
                piece = self._some(min(left, READ))
                left -= len(piece)
                yield piece
            if self._line():
                raise HttpError("a chunk is longer than it said")
        while self._line():
            pass  # trailers

    def _head(self) -> Head:
        first = self._line().decode("latin-1")
        version, _, rest = first.partition(" ")
        number, _, phrase = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(number) != 3 or not number.isdecimal():
            raise HttpError(f"no HTTP answer: {first[:80]!r}")
        if version == "HTTP/1.0":
            self.keep = False
        headers: dict[str, str] = {}
        size = len(first)
        while line := self._line():
            size += len(line)
            if size > MAX_HEAD:
                raise HttpError("the head of an answer is too long")
            name, _, value = line.decode("latin-1").partition(":")
            key, value = name.strip().lower(), value.strip()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return Head(int(number), phrase, headers)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise HttpError("a line of an answer is too long")
            self._buffer += self._receive()
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def _some(self, limit: int) -> bytes:
        if not self._buffer:
            self._buffer = self._receive()
        piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return piece

    def _receive(self) -> bytes:
        self._wait()
        data = self.sock.recv(READ)
        if not data:
            self.keep = False
            raise Closed("the connection was closed")
        return data

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)


def whole(pieces: Iterator[bytes], limit: int = MAX_BODY) -> bytes:
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > limit:
            raise HttpError(f"an answer is longer than {limit >> 20} MiB")
    return bytes(found)


def _number(text: str, base: int) -> int:
    try:
        value = int(text.strip(), base)
    except ValueError:
        value = -1
    if value < 0:
        raise HttpError(f"not a length: {text[:40]!r}")
    return value
