"""netlink(7) with the standard library alone: messages, nested attributes, acknowledgements and dumps."""

from __future__ import annotations

import os
import socket
import struct
from typing import Iterator, List, Tuple

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
CREATE = 0x400
ERROR, DONE = 2, 3
NETFILTER, SOCK_DIAG = 12, 4
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_TIMEOUT = 5.0  # seconds; answers are made while the request is sent, only a dump has more to say
_BUFFER = 1 << 16


def attr(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("!I", value & 0xFFFFFFFF))


def attributes(data: bytes) -> Iterator[Tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def message(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST, sequence, 0) + body


class Netlink:
    def __init__(self, family: int) -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self.sock.settimeout(_TIMEOUT)
        self.sock.bind((0, 0))

    def close(self) -> None:
        self.sock.close()

    def commit(self, data: bytes, last: int) -> None:
        """Send messages of which only number `last` asks for an acknowledgement; raises OSError for the first that failed."""
        self.sock.send(data)
        while True:
            for kind, sequence, body in self._receive():
                if kind == ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    if sequence == last:
                        return

    def dump(self, data: bytes) -> List[bytes]:
        """The bodies of all messages that answer; raises OSError."""
        self.sock.send(data)
        found: List[bytes] = []
        while True:
            for kind, _sequence, body in self._receive():
                if kind == DONE:
                    return found
                if kind == ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, os.strerror(code))
                found.append(body)

    def _receive(self) -> List[Tuple[int, int, bytes]]:
        data, at, found = self.sock.recv(_BUFFER), 0, []
        while at + _HEADER.size <= len(data):
            size, kind, _flags, sequence, _port = _HEADER.unpack_from(data, at)
            found.append((kind, sequence, data[at + _HEADER.size : at + size]))
            at += (size + 3) & ~3
        return found
