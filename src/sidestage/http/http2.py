"""Frames of HTTP/2 (RFC 9113), split and built; header blocks put together; what a request's fields say. Sans-IO."""

from __future__ import annotations

import re
import struct
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from sidestage.http.filters import Facts
from sidestage.http.hpack import TABLE, Field, encode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16  # RFC 9218 7.1
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, FRAME_SIZE, LIST_SIZE = range(1, 7)
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CALM = 6, 7, 8, 9, 11
WINDOW = 65_535  # bytes of flow control until said otherwise, RFC 9113 6.9.2
MAX_WINDOW = (1 << 31) - 1
SIZE = 16_384  # bytes of a frame's payload until said otherwise
MAX_FRAME = 1 << 20  # and the most that is taken, whatever was said
MAX_BLOCK = 256 << 10  # bytes of a header block, over all its frames
MAX_CONTINUATIONS = 64  # of one block (CVE-2024-27316 and its like: endless ones)

_BAD = re.compile(rb"[\0\r\n]")
_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


class BrokenFrame(Exception):
    """What came breaks the rules of frames; `code` is RFC 9113's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes
    raw: bytes  # as it came

    def to(self, stream: int) -> bytes:
        """The same frame of another stream."""
        return self.raw if stream == self.stream else self.raw[:5] + struct.pack("!I", stream) + self.payload

    def content(self) -> bytes:
        """The payload of DATA, HEADERS or PUSH_PROMISE without padding and priority. Raises BrokenFrame."""
        data = self.payload
        start, end = 0, len(data)
        if self.flags & PADDED:
            if not data:
                raise BrokenFrame(FRAME_SIZE_ERROR)
            start, end = 1, end - data[0]
        if self.flags & PRIORITIZED and self.kind == HEADERS:
            start += 5
        if start > end:
            raise BrokenFrame(PROTOCOL_ERROR)
        return data[start:end] if (start, end) != (0, len(data)) else data

    def number(self) -> int:
        """The one number of RST_STREAM or WINDOW_UPDATE. Raises BrokenFrame."""
        if len(self.payload) != 4:
            raise BrokenFrame(FRAME_SIZE_ERROR)
        return int.from_bytes(self.payload, "big")


class Splitter:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self.limit = SIZE
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """What is not taken stays. Raises BrokenFrame."""
        self._buffer += data
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3], "big")
            if size > self.limit:
                raise BrokenFrame(FRAME_SIZE_ERROR)
            if len(self._buffer) < 9 + size:
                return
            raw = bytes(self._buffer[: 9 + size])
            del self._buffer[: 9 + size]
            yield Frame(raw[3], raw[4], int.from_bytes(raw[5:9], "big") & MAX_WINDOW, raw[9:], raw)

    def rest(self) -> bytes:
        """All that was not split; it is taken away."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


class Blocks:
    """Puts HEADERS or PUSH_PROMISE and their CONTINUATIONs together: nothing may come between them (RFC 9113 4.3)."""

    def __init__(self) -> None:
        self._frames: List[Frame] = []
        self._size = 0

    def feed(self, frame: Frame) -> Optional[List[Frame]]:
        """The frames of a block that is complete; [] for a frame that is none of a block. Raises BrokenFrame."""
        if self._frames:
            if frame.kind != CONTINUATION or frame.stream != self._frames[0].stream:
                raise BrokenFrame(PROTOCOL_ERROR)
        elif frame.kind not in (HEADERS, PUSH_PROMISE):
            if frame.kind == CONTINUATION:
                raise BrokenFrame(PROTOCOL_ERROR)
            return []
        self._frames.append(frame)
        self._size += len(frame.payload)
        if self._size > MAX_BLOCK or len(self._frames) > MAX_CONTINUATIONS:
            raise BrokenFrame(CALM)
        if not frame.flags & END_HEADERS:
            return None
        frames, self._frames, self._size = self._frames, [], 0
        return frames

    def rest(self) -> bytes:
        """What is held, as it came; it is taken away."""
        frames, self._frames, self._size = self._frames, [], 0
        return b"".join(frame.raw for frame in frames)


def fragment(frames: List[Frame]) -> bytes:
    """The header block that they carry. Raises BrokenFrame."""
    return b"".join([frames[0].content()] + [frame.payload for frame in frames[1:]])


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def headers(stream: int, fields: Iterable[Field], end: bool, size: int, updates: Iterable[int] = ()) -> bytes:
    """HEADERS, and CONTINUATIONs where the block is longer than `size`."""
    block = encode(fields, updates)
    parts = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(CONTINUATION if number else HEADERS, (END_HEADERS if number == last else 0) | (end and not number), stream, part)
        for number, part in enumerate(parts)
    )


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", size))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


def settings(values: Dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *item) for item in values.items()))


def begins_settings(data: bytes) -> bool:
    """May `data` begin with a frame of SETTINGS? Then its length is below 64 KiB; no text begins so, and no greeting we know."""
    return data[:1] == b"\0" and data[3:9] == b"\x04\0\0\0\0\0"[: max(0, len(data) - 3)]


def read_settings(payload: bytes) -> List[Tuple[int, int]]:
    """Raises BrokenFrame."""
    if len(payload) % 6:
        raise BrokenFrame(FRAME_SIZE_ERROR)
    return list(struct.iter_unpack("!HI", payload))


def table_size(payload: bytes) -> int:
    """Of a decoder's table, as SETTINGS leave it. Raises BrokenFrame."""
    return dict(read_settings(payload)).get(TABLE_SIZE, TABLE)


def facts(fields: List[Field], body: Optional[bytes]) -> Optional[Facts]:
    """What filters look at; None for a malformed request (RFC 9113 8.2 and 8.3), of which its server may think what it likes."""
    pseudo: Dict[bytes, bytes] = {}
    plain = False
    for name, value, _ in fields:
        if name[:1] == b":":
            if plain or name in pseudo:
                return None
            pseudo[name] = value
        else:
            plain = True
            if name in _HOP or name != name.lower() or not name or _BAD.search(value):
                return None
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not method or (not path and method != b"CONNECT"):
        return None

    def lines() -> List[str]:
        found = [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value, _ in fields if name[:1] != b":"]
        authority = pseudo.get(b":authority")
        return found if authority is None else [*found, f"host: {authority.decode('latin-1')}"]

    return Facts(method.decode("latin-1"), path.decode("latin-1"), lines, body)
