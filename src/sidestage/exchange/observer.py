"""Follows one client's connection, sans-IO: its bytes, and what each side answers; tells of exchanges as they grow.

Knows HTTP/1 and HTTP/2 by the first bytes. What is neither, or is read in two ways, is left alone from there on: observing is
for people, and never decides anything.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable

from sidestage.exchange import http1, http2
from sidestage.exchange.http1 import Ambiguous
from sidestage.exchange.model import LOCAL, TARGET, Answer, Body, Exchange, Headers

MAX_OPEN = 256  # exchanges of one connection that wait for answers
_numbers = itertools.count(1)

Tell = Callable[[str, Exchange, str], None]  # "request" | "answer" | "done", the exchange, the side


class Observer:
    def __init__(self, tell: Tell, sides: tuple[str, ...] = (LOCAL,)) -> None:
        """`sides` are those whose answers will be given; an exchange is over when all of them have answered."""
        self._tell, self._sides = tell, sides
        self._first = b""
        self._spoken: _Http1 | _Http2 | None = None
        self._early: dict[str, bytes] = {}
        self.gone = False

    def client(self, data: bytes) -> None:
        self._guarded(lambda: self._client(data))

    def answer(self, side: str, data: bytes) -> None:
        self._guarded(lambda: self._answer(side, data))

    def answer_eof(self, side: str) -> None:
        self._guarded(lambda: self._spoken.eof(side) if self._spoken else None)

    def waiting(self, side: str) -> bool:
        """Has a request come that this side has not answered to its end?"""
        return self._spoken is not None and self._spoken.waiting(side)

    def lost(self, side: str) -> None:
        """No more answers of this side will be given."""
        self._guarded(lambda: self._lose(side))

    def _lose(self, side: str) -> None:
        self._sides = tuple(other for other in self._sides if other != side)
        self._early.pop(side, None)
        if self._spoken is not None:
            self._spoken.lose(side)

    def _guarded(self, work: Callable[[], None]) -> None:
        if not self.gone:
            try:
                work()
            except (Ambiguous, UnicodeDecodeError):
                self.gone, self._spoken = True, None

    def _client(self, data: bytes) -> None:
        if self._spoken is None:
            self._first += data
            if http2.PREFACE.startswith(self._first[: len(http2.PREFACE)]):
                if len(self._first) < len(http2.PREFACE):
                    return
                self._spoken, data = _Http2(self._tell, self._sides), self._first[len(http2.PREFACE) :]
            else:
                self._spoken, data = _Http1(self._tell, self._sides), self._first
            self._first = b""
            self._spoken.client(data)
            for side, early in self._early.items():
                self._spoken.answer(side, early)
        else:
            self._spoken.client(data)

    def _answer(self, side: str, data: bytes) -> None:
        if side not in self._sides:
            return
        if self._spoken is not None:
            self._spoken.answer(side, data)
        else:  # a server of HTTP/2 may speak first, and channels of the two directions may overtake each other
            self._early[side] = self._early.get(side, b"") + data
            if len(self._early[side]) > 64 << 10:
                raise Ambiguous("a server that speaks first")


class _Exchanges:
    VERSION = "HTTP/1.1"

    def __init__(self, tell: Tell, sides: tuple[str, ...]) -> None:
        self._tell, self._sides = tell, sides

    def _request(self, method: str, path: str, headers: Headers) -> Exchange:
        exchange = Exchange(next(_numbers), method, path, headers, version=self.VERSION)
        self._tell("request", exchange, "")
        return exchange

    def _head(self, exchange: Exchange, side: str, status: int, headers: Headers) -> Answer:
        answer = exchange.answers[side] = Answer(status, headers, time.monotonic() - exchange.began)
        self._tell("answer", exchange, side)
        return answer

    def lose(self, side: str) -> None:
        self._sides = tuple(other for other in self._sides if other != side)

    def _done(self, exchange: Exchange, side: str) -> bool:
        """True when all sides have answered."""
        exchange.answers[side].done = True
        self._tell("done", exchange, side)
        return all(other in exchange.answers and exchange.answers[other].done for other in self._sides)


class _Http1(_Exchanges):
    def __init__(self, tell: Tell, sides: tuple[str, ...]) -> None:
        super().__init__(tell, sides)
        self._requests = http1.Requests(self._begun, self._ended)
        self._last: Exchange | None = None
        self._waiting: dict[str, deque[Exchange]] = {side: deque() for side in sides}
        self._answers = {side: self._reader(side) for side in sides}

    def client(self, data: bytes) -> None:
        if not any(reader.switched for reader in self._answers.values()):
            self._requests.feed(data)
            for reader in self._answers.values():
                reader.feed(b"")  # an answer that overtook its request

    def answer(self, side: str, data: bytes) -> None:
        self._answers[side].feed(data)

    def eof(self, side: str) -> None:
        if side in self._answers:
            self._answers[side].eof()

    def lose(self, side: str) -> None:
        super().lose(side)
        self._answers.pop(side, None)
        self._waiting.pop(side, None)

    def _begun(self, method: str, path: str, headers: Headers) -> Body:
        self._last = self._request(method, path, headers)
        for waiting in self._waiting.values():
            if len(waiting) >= MAX_OPEN:
                raise Ambiguous("answers don't come")
            waiting.append(self._last)
        return self._last.body

    def _ended(self) -> None:
        if self._last:
            self._last.complete = True

    def _reader(self, side: str) -> http1.Answers:
        waiting = self._waiting[side]
        return http1.Answers(
            lambda: waiting[0].method.encode() if waiting else None,
            lambda status, headers: self._head(waiting[0], side, status, headers),
            lambda: self._finish(waiting.popleft(), side),
        )

    def waiting(self, side: str) -> bool:
        return bool(self._waiting.get(side))

    def _finish(self, exchange: Exchange, side: str) -> None:
        self._done(exchange, side)


class _Http2(_Exchanges):
    VERSION = "HTTP/2"

    def __init__(self, tell: Tell, sides: tuple[str, ...]) -> None:
        super().__init__(tell, sides)
        self._streams: dict[int, Exchange] = {}
        self._requests = http2.Frames(_Requests(self))
        self._answers = {side: http2.Frames(_Answers(self, side)) for side in sides}

    def client(self, data: bytes) -> None:
        self._requests.feed(data)
        if self._requests.table_size is not None:
            for frames in self._answers.values():
                frames.limit(self._requests.table_size)

    def answer(self, side: str, data: bytes) -> None:
        frames = self._answers[side]
        frames.feed(data)
        if frames.table_size is not None and side == self._sides[0]:
            self._requests.limit(frames.table_size)  # the client has one table, for the server that it talks to

    def eof(self, side: str) -> None:
        return

    def begun(self, stream: int, headers: Headers) -> None:
        if stream in self._streams:
            return  # trailers
        if len(self._streams) >= MAX_OPEN:
            raise Ambiguous("answers don't come")
        known = dict(headers)
        plain = [(name, value) for name, value in headers if not name.startswith(":")]
        host = [("host", known[":authority"])] if ":authority" in known and "host" not in known else []
        self._streams[stream] = self._request(known.get(":method", ""), known.get(":path", ""), host + plain)

    def answered(self, stream: int, side: str, headers: Headers) -> None:
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if side in exchange.answers:
            exchange.answers[side].trailers = headers
            return
        status = dict(headers).get(":status", "")
        if status.isdecimal() and int(status) >= 200:
            self._head(exchange, side, int(status), [pair for pair in headers if not pair[0].startswith(":")])

    def waiting(self, side: str) -> bool:
        return any(side not in each.answers or not each.answers[side].done for each in self._streams.values())

    def of(self, stream: int) -> Exchange | None:
        return self._streams.get(stream)

    def over(self, stream: int, side: str) -> None:
        exchange = self._streams.get(stream)
        if exchange and side in exchange.answers and self._done(exchange, side):
            del self._streams[stream]

    def dropped(self, stream: int) -> None:
        self._streams.pop(stream, None)


class _Requests:
    def __init__(self, owner: _Http2) -> None:
        self._owner = owner

    def headers(self, stream: int, headers: Headers) -> None:
        self._owner.begun(stream, headers)

    def data(self, stream: int, data: bytes) -> None:
        exchange = self._owner.of(stream)
        if exchange:
            exchange.body.add(data)

    def end(self, stream: int) -> None:
        exchange = self._owner.of(stream)
        if exchange:
            exchange.complete = True

    def reset(self, stream: int) -> None:
        self._owner.dropped(stream)


class _Answers:
    def __init__(self, owner: _Http2, side: str) -> None:
        self._owner, self._side = owner, side

    def headers(self, stream: int, headers: Headers) -> None:
        self._owner.answered(stream, self._side, headers)

    def data(self, stream: int, data: bytes) -> None:
        exchange = self._owner.of(stream)
        if exchange and self._side in exchange.answers:
            exchange.answers[self._side].body.add(data)

    def end(self, stream: int) -> None:
        self._owner.over(stream, self._side)

    def reset(self, stream: int) -> None:
        self._owner.dropped(stream)


__all__ = ["LOCAL", "TARGET", "Observer"]
