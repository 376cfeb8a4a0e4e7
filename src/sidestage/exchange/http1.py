"""Reads HTTP/1 as it passes: the requests of a client, and the answers of one side to them, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidestage.exchange.model import Answer, Body, Headers
from sidestage.http import http1
from sidestage.http.http1 import Ambiguous, Chunked

OnRequest = Callable[[str, str, Headers], Body]  # method, path, headers; returns where its body goes


class Requests:
    """`on_request` at each head, `on_complete` at each end. Raises Ambiguous."""

    def __init__(self, on_request: OnRequest, on_complete: Callable[[], None]) -> None:
        self._on_request, self._on_complete = on_request, on_complete
        self._data = b""
        self._seen = 0
        self._reading: Reading | None = None

    def feed(self, data: bytes) -> None:
        self._data += data
        while self._data:
            if self._reading is None:
                end = http1.head_end(self._data, 0, self._seen)
                if end < 0:
                    self._seen = len(self._data)
                    return
                head = http1.request(self._data[:end])
                self._data, self._seen = self._data[end:], 0
                body = self._on_request(head.method.decode(), head.target.decode(), _headers(head.fields))
                self._reading = Reading(head.body, body)
            self._data = self._reading.feed(self._data)
            if not self._reading.done:
                return
            self._reading = None
            self._on_complete()


class Answers:
    """`next_method` says what the answer that begins is to; `on_head` and `on_done` follow it. Raises Ambiguous."""

    def __init__(
        self, next_method: Callable[[], bytes | None], on_head: Callable[[int, Headers], Answer], on_done: Callable[[], None]
    ) -> None:
        self._next_method, self._on_head, self._on_done = next_method, on_head, on_done
        self._data = b""
        self._reading: Reading | None = None
        self.switched = False  # another protocol follows

    def feed(self, data: bytes) -> None:
        self._data += data
        while self._data and not self.switched:
            if self._reading is None:
                end = http1.head_end(self._data)
                method = self._next_method() if end >= 0 else None
                if method is None:
                    return
                head = http1.response(self._data[:end], method)
                fields = head.raw.partition(b"\r\n")[2][:-2]
                self._data = self._data[end:]
                if head.status == 101 or (method == b"CONNECT" and head.status < 300):
                    self.switched = True
                elif head.status < 200:
                    continue  # interim, the final one follows
                self._reading = Reading(0 if self.switched else head.body, self._on_head(head.status, _headers(fields)).body)
            self._data = self._reading.feed(self._data)
            if self._reading.done:
                self._reading = None
                self._on_done()

    def eof(self) -> None:
        if self._reading is not None and self._reading.until_end:
            self._reading = None
            self._on_done()


class Reading:
    """One body under way."""

    def __init__(self, kind: int | Chunked | None, into: Body) -> None:
        self._into = into
        self.until_end = kind is None
        self._chunks = kind if isinstance(kind, Chunked) else None
        self._left = kind if isinstance(kind, int) else 0
        if self._chunks:
            self._chunks.keep()
        self.done = not (self.until_end or self._chunks or self._left)

    def feed(self, data: bytes) -> bytes:
        """What is left behind its end."""
        if self.until_end:
            self._into.add(data)
            return b""
        if self._chunks:
            end = self._chunks.feed(data)
            assert self._chunks.data is not None
            self._into.add(bytes(self._chunks.data))
            self._chunks.data.clear()
            self.done = end >= 0
            return data[end:] if self.done else b""
        took, rest = data[: self._left], data[self._left :]
        self._into.add(took)
        self._left -= len(took)
        self.done = not self._left
        return rest


def _headers(fields: bytes) -> Headers:
    return list(_pairs(fields))


def _pairs(fields: bytes) -> Iterator[tuple[str, str]]:
    for line in http1.lines(fields):
        name, _, value = line.partition(": ")
        yield name, value


__all__ = ["Ambiguous", "Answers", "Requests"]
