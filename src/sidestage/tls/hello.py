"""A TLS client's first message, as far as it must be known before anybody answers it: is it TLS, for which server, and with which
protocols inside? Pure; RFC 8446 4.1.2 and 5.1, RFC 6066 3, RFC 7301. It may be cut anywhere, and spread over several records.
"""

from __future__ import annotations

import struct
from typing import Iterator, NamedTuple, Optional, Tuple

MAX_HELLO = 64 << 10  # bytes of the message; with keys of after the quantum computer it has two thousand
MAX_FIRST = 2 * MAX_HELLO  # bytes of the records that it comes in
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN, _VERSIONS = 0, 16, 43  # extensions
_TLS_1_2 = 0x0303
_RECORD = 1 << 14  # bytes


class Hello(NamedTuple):
    name: str  # of the server; empty: none
    protocols: Tuple[str, ...]  # those of ALPN that are text, in the client's order
    modern: bool  # TLS 1.2 or later will do


class NotTls(Exception):
    """Whatever it is, it isn't for us to judge."""


class Reader:
    def __init__(self) -> None:
        self._record = b""  # one that is not complete
        self._message = b""
        self._taken = 0

    def feed(self, data: bytes) -> Optional[Hello]:
        """None: more is needed. Raises NotTls."""
        self._taken += len(data)
        self._record += data
        while self._record:
            record = self._record
            if record[0] != _HANDSHAKE or record[1:2] not in (b"", b"\x03") or self._taken > MAX_FIRST:
                raise NotTls
            if len(record) < 5:
                return None
            (length,) = struct.unpack_from("!H", record, 3)
            if not 0 < length <= _RECORD or (len(record) > 5 and not self._message and record[5] != _CLIENT_HELLO):
                raise NotTls
            if len(record) < 5 + length:
                return None
            self._message += record[5 : 5 + length]
            self._record = record[5 + length :]
            size = int.from_bytes(self._message[1:4], "big")
            if len(self._message) >= 4 and size > MAX_HELLO:
                raise NotTls
            if len(self._message) >= 4 + max(size, 1):
                return _hello(self._message[4 : 4 + size])
        return None


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left():
            raise NotTls
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """What is behind a length of so many bytes."""
        return self.take(self.number(size))


def _hello(data: bytes) -> Hello:
    cursor = _Cursor(data)
    version = cursor.number(2)
    cursor.take(32)
    cursor.vector(1)  # session
    cursor.vector(2)  # ciphers
    cursor.vector(1)  # compression
    name, modern = "", version >= _TLS_1_2
    protocols: Tuple[str, ...] = ()
    for kind, body in _extensions(cursor.vector(2)) if cursor.left() else ():
        if kind == _SERVER_NAME:
            name = _name(body)
        elif kind == _ALPN:
            protocols = tuple(_texts(_Cursor(body).vector(2)))
        elif kind == _VERSIONS:
            listed = _Cursor(body).vector(1)
            # Those of GREASE (RFC 8701) are 0x?a?a
            modern = any(_TLS_1_2 <= each < 0x0400 for (each,) in struct.iter_unpack("!H", listed[: len(listed) & ~1]))
    return Hello(name, protocols, modern)


def _extensions(data: bytes) -> Iterator[Tuple[int, bytes]]:
    cursor = _Cursor(data)
    while cursor.left():
        yield cursor.number(2), cursor.vector(2)


def _name(body: bytes) -> str:
    names = _Cursor(_Cursor(body).vector(2))
    while names.left():
        kind, text = names.number(1), names.vector(2)
        if kind == 0:
            try:
                return text.decode("ascii")
            except UnicodeDecodeError:
                raise NotTls from None
    return ""


def _texts(data: bytes) -> Iterator[str]:
    cursor = _Cursor(data)
    while cursor.left():
        text = cursor.vector(1)
        if text and text.isascii():
            yield text.decode("ascii")
