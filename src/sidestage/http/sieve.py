"""The mirror's filter: of what one client sends on a connection, only the requests that match; sans-IO.

There are no answers to look at, so what follows an upgrade is told by its first bytes: HTTP goes on, or the rest follows its
request. What is ambiguous is nobody's here: the copy ends, as a wrong one would be worse than none. HTTP/2 is encoded anew for
the local program, with the numbers of the client's streams.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Union

from sidestage.http import http1, http2
from sidestage.http.filters import Facts
from sidestage.http.hpack import Decoder, Field, HpackError
from sidestage.http.http1 import Ambiguous, Chunked, Request
from sidestage.http.http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Blocks,
    BrokenFrame,
    Frame,
    Splitter,
    fragment,
    frame,
    headers,
)
from sidestage.http.orders import POD, Order, Rule, body_bounds, choose

MAX_HELD = 256 << 10  # bytes of requests that wait for their bodies, of one connection
MAX_STREAMS = 1_000  # followed at once


class Sieve:
    """`feed` gives what is to be told of the bytes; `lost` is set when the copy can't go on."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self.notes: List[Order] = []
        self.lost = False
        self._buffer = b""
        self._seen = 0
        self._two: Optional[_Streams] = None
        self._request: Optional[Request] = None
        self._left: Union[int, Chunked] = 0
        self._mine = False  # the request under way is told
        self._hold: Optional[bytearray] = None
        self._rest = False  # all that comes belongs to the last request
        self._upgraded = False  # what comes next may be another protocol

    def feed(self, data: bytes) -> bytes:
        if self.lost:
            return b""
        if self._rest:
            return data if self._mine else b""
        out: List[bytes] = []
        try:
            if self._two is None:
                self._buffer += data
                while self._buffer and self._step(out):
                    pass
            else:
                self._two.feed(data, out)
        except (Ambiguous, BrokenFrame, HpackError):
            self.lost = True
        return b"".join(out)

    def _step(self, out: List[bytes]) -> bool:
        if self._rest:
            return False
        if self._request is not None:
            self._body(out)
            return True
        data = self._buffer
        if data[:24] == PREFACE[: len(data)]:
            if len(data) < 24:
                return False
            self._two, self._buffer = _Streams(self._rules, self.notes), b""
            self._two.feed(data[24:], out)
            return False
        if self._upgraded and not http1.begins_http1(data):
            self._rest = True  # a WebSocket, or the like
            if self._mine:
                out.append(data)
            return False
        end = http1.head_end(data, 0, self._seen)
        if end < 0:
            self._seen = len(data)
            if not http1.begins_http1(data):
                raise Ambiguous
            return False
        self._seen = 0
        request = http1.request(data[:end])
        self._request, self._left, self._buffer = request, request.body, data[end:]
        self._upgraded = bool(request.upgrade) or request.method == b"CONNECT"
        length = request.body
        fits = bool(self._rules) and (not isinstance(length, int) or 0 < length <= body_bounds(self._rules)[0])
        self._decide(None if fits and b"content-encoding:" not in request.fields.lower() else b"", out)
        return True

    def _decide(self, body: Optional[bytes], out: List[bytes]) -> None:
        request = self._request
        assert request is not None
        facts = Facts(request.method.decode(), request.target.decode(), lambda: http1.lines(request.fields), body)
        target = choose(self._rules, facts, self.notes) if self._rules else POD
        if target is None:
            self._hold = bytearray()
            if isinstance(self._left, Chunked):
                self._left.keep()
            return
        self._mine = target != POD
        if self._mine:
            out.append(request.raw)
        if self._hold is not None:
            held, self._hold = bytes(self._hold), None
            if self._mine:
                out.append(held)
        if self._left == 0:
            self._end()

    def _body(self, out: List[bytes]) -> None:
        data, left = self._buffer, self._left
        if isinstance(left, int):
            end = min(left, len(data))
            self._left = left - end
            complete = left == end
        else:
            end = left.feed(data)
            complete = end >= 0
            end = end if complete else len(data)
        self._buffer = data[end:]
        if self._hold is not None:
            self._hold += data[:end]
            if complete:
                body = bytes(left.data or b"") if isinstance(left, Chunked) else bytes(self._hold)
                self._decide(body, out)
            elif not self._rules or len(self._hold) > 2 * body_bounds(self._rules)[0]:
                self._decide(b"", out)
        elif self._mine:
            out.append(data[:end])
        if complete:
            self._end()

    def _end(self) -> None:
        if self._request is not None and not self._request.persistent:
            self._rest, self._mine = True, False
        self._request = None


class _Told:
    """A stream of HTTP/2."""

    __slots__ = ("fields", "held", "mine")

    def __init__(self, fields: List[Field]) -> None:
        self.fields = fields
        self.mine: Optional[bool] = None  # None: its body decides
        self.held: List[bytes] = []


class _Streams:
    def __init__(self, rules: Sequence[Rule], notes: List[Order]) -> None:
        self._rules, self._notes = rules, notes
        self._splitter, self._blocks, self._decoder = Splitter(), Blocks(), Decoder(1 << 20)
        self._splitter.limit = http2.MAX_FRAME  # what the target allowed isn't seen
        self._streams: Dict[int, _Told] = {}
        self._held = 0
        self._greeted = False
        self._early: List[bytes] = []  # frames of the connection, told with the first request

    def feed(self, data: bytes, out: List[bytes]) -> None:
        for each in self._splitter.feed(data):
            block = self._blocks.feed(each)
            if block:
                self._fields(block, out)
            elif block is not None:
                self._frame(each, out)

    def _tell(self, raw: bytes, out: List[bytes]) -> None:
        if not self._greeted:
            self._greeted = True
            out.append(PREFACE)
            out += self._early
        out.append(raw)

    def _frame(self, each: Frame, out: List[bytes]) -> None:
        kind = each.kind
        told = self._streams.get(each.stream)
        if (kind == SETTINGS and not each.flags & http2.ACK) or (kind == WINDOW_UPDATE and not each.stream):
            if self._greeted:
                out.append(each.raw)
            elif len(self._early) < MAX_STREAMS:
                self._early.append(each.raw)
        elif kind == DATA and told is not None:
            self._data(each, told, out)
        elif kind in (RST_STREAM, WINDOW_UPDATE) and told is not None:
            if told.mine:
                out.append(each.raw)
            if kind == RST_STREAM:
                self._drop(each.stream)
        elif kind in (PING, GOAWAY) and self._greeted:
            out.append(each.raw)

    def _fields(self, block: List[Frame], out: List[bytes]) -> None:
        first = block[0]
        if first.kind == PUSH_PROMISE:
            raise BrokenFrame(http2.PROTOCOL_ERROR)
        fields, _ = self._decoder.decode(fragment(block))
        number, end = first.stream, bool(first.flags & END_STREAM)
        told = self._streams.get(number)
        if told is not None:  # trailers
            if told.mine is None:
                self._decide(number, told, self._body(told), out)
            if told.mine:
                out.append(headers(number, fields, end, http2.SIZE))
        elif len(self._streams) < MAX_STREAMS:
            told = self._streams[number] = _Told(fields)
            coded = any(field.name == b"content-encoding" for field in fields)
            self._decide(number, told, b"" if end or coded else None, out, end)
        if end:
            self._drop(number)

    def _decide(self, number: int, told: _Told, body: Optional[bytes], out: List[bytes], end: bool = False) -> None:
        facts = http2.facts(told.fields, body)
        target = choose(self._rules, facts, self._notes) if facts is not None and self._rules else POD
        told.mine = None if target is None else target != POD
        if told.mine:
            self._tell(headers(number, told.fields, end, http2.SIZE), out)
            out += told.held
        if told.mine is not None:
            self._held -= sum(map(len, told.held))
            told.held = []

    def _data(self, each: Frame, told: _Told, out: List[bytes]) -> None:
        end = bool(each.flags & END_STREAM)
        if told.mine is None:
            told.held.append(frame(DATA, int(end), each.stream, each.content()))
            self._held += len(told.held[-1])
            if end:
                self._decide(each.stream, told, self._body(told), out)
            elif self._held > MAX_HELD:
                self._decide(each.stream, told, b"", out)
        elif told.mine:
            out.append(each.raw)
        if end:
            self._drop(each.stream)

    def _body(self, told: _Told) -> bytes:
        return b"".join(part[9:] for part in told.held)

    def _drop(self, number: int) -> None:
        told = self._streams.pop(number, None)
        if told is not None:
            self._held -= sum(map(len, told.held))
