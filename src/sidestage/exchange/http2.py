"""Reads HTTP/2 as it passes (RFC 9113): frames of one direction, their headers and data by stream."""

from __future__ import annotations

import struct
from typing import Protocol

from sidestage.exchange.model import Headers
from sidestage.http.hpack import Decoder, HpackError
from sidestage.http.http1 import Ambiguous

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_BLOCK = 256 << 10  # bytes of a header block with its continuations
MAX_FRAME = 1 << 24
_DATA, _HEADERS, _RESET, _SETTINGS, _PUSH, _CONTINUATION = 0, 1, 3, 4, 5, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_TABLE_SIZE = 1


class Sink(Protocol):
    def headers(self, stream: int, headers: Headers) -> None: ...
    def data(self, stream: int, data: bytes) -> None: ...
    def end(self, stream: int) -> None: ...
    def reset(self, stream: int) -> None: ...


class Frames:
    """One direction; `sink` hears of it. Raises Ambiguous."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = bytearray()
        self._decoder = Decoder()
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags, what came of it
        self.table_size: int | None = None  # what this side's SETTINGS allow the other to use

    def limit(self, size: int) -> None:
        """The other side's SETTINGS_HEADER_TABLE_SIZE."""
        self._decoder.limit = size

    def feed(self, data: bytes) -> None:
        buffer = self._data
        buffer += data
        at = 0
        while len(buffer) - at >= 9:
            high, low, kind, flags, stream = struct.unpack_from("!BHBBI", buffer, at)
            size = high << 16 | low
            if len(buffer) - at - 9 < size:
                break
            self._frame(kind, flags, stream & 0x7FFFFFFF, bytes(buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del buffer[:at]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            payload = _unpadded(payload, flags)
            if payload:
                self._sink.data(stream, payload)
            if flags & _END_STREAM:
                self._sink.end(stream)
        elif kind == _HEADERS:
            payload = _unpadded(payload, flags)
            self._begin(stream, flags, payload[5:] if flags & _PRIORITY else payload)
        elif kind == _CONTINUATION and self._block is not None:
            self._block[2].extend(payload)
            if len(self._block[2]) > MAX_BLOCK:
                raise Ambiguous("a header block without end")
            if flags & _END_HEADERS:
                self._finish()
        elif kind == _PUSH:  # its block must be decoded, or the table is lost; what it promises is not followed
            payload = _unpadded(payload, flags)
            self._begin(0, flags & _END_HEADERS, payload[4:])
        elif kind == _RESET:
            self._sink.reset(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack("!HI", payload[: len(payload) // 6 * 6]):
                if name == _TABLE_SIZE:
                    self.table_size = value

    def _begin(self, stream: int, flags: int, payload: bytes) -> None:
        self._block = (stream, flags, bytearray(payload))
        if flags & _END_HEADERS:
            self._finish()

    def _finish(self) -> None:
        assert self._block is not None
        stream, flags, block = self._block
        self._block = None
        try:
            fields, _ = self._decoder.decode(bytes(block))
        except HpackError as error:
            raise Ambiguous(str(error)) from error
        if not stream:
            return
        self._sink.headers(stream, [(field.name.decode("latin-1"), field.value.decode("latin-1")) for field in fields])
        if flags & _END_STREAM:
            self._sink.end(stream)


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Ambiguous("more padding than payload")
    return payload[1 : len(payload) - payload[0]]
