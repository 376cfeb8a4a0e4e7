"""From the bytes of the stream, in whatever slices they come, to frames: (type, channel, payload).

A frame is told when it is whole, except DATA of more than MAX_RECORD, which is told in the pieces that came. Long payloads are
views of what was fed, so that bulk isn't copied; short ones are copies, so that a view of a few bytes doesn't keep much alive.
"""

from __future__ import annotations

from typing import Iterator, Tuple

from sidestage.protocol import wire
from sidestage.protocol.errors import ProtocolError
from sidestage.protocol.messages import Buffer

Frame = Tuple[int, int, Buffer]
_HEADER = wire.HEADER.size


class Inbox:
    def __init__(self) -> None:
        self._kept = bytearray()  # a frame's beginning
        self._need = wire.PREAMBLE.size  # bytes that must be there to go on
        self._greeted = False
        self._left = 0  # of the frame that is told in pieces
        self._channel = 0

    def wanted(self) -> int:
        """Bytes to read so that the next piece ends with its frame and the next header; 0: any number."""
        rest = self._left or self._need - len(self._kept)
        return rest + _HEADER if rest > wire.MAX_RECORD else 0

    def feed(self, data: Buffer) -> Iterator[Frame]:
        if self._kept or len(data) < self._need:
            self._kept += data
            if len(self._kept) < self._need:
                if not self._greeted:
                    self._check_magic(self._kept)
                return
            data, self._kept = self._kept, bytearray()
        at, size = 0, len(data)
        view = memoryview(data)
        if not self._greeted:
            at = self._greeting(view)
        while True:
            if self._left:
                end = min(at + self._left, size)
                if end > at:
                    self._left -= end - at
                    yield wire.DATA, self._channel, _cut(view, at, end)
                    at = end
                if self._left:
                    self._need = 1
                    break
            self._need = _HEADER
            if size - at < _HEADER:
                break
            length, kind, channel = wire.HEADER.unpack_from(view, at)
            if kind not in wire.KINDS:
                raise ProtocolError(f"unknown frame type {kind}")
            if length > wire.MAX_PAYLOAD:
                raise ProtocolError(f"frame of {length} bytes")
            end = at + _HEADER + length
            if end <= size:
                yield kind, channel, _cut(view, at + _HEADER, end)
                at = end
            elif kind == wire.DATA and length > wire.MAX_RECORD:
                self._left, self._channel = length, channel
                at += _HEADER
            else:
                self._need = _HEADER + length
                break
        self._kept += view[at:]

    def _greeting(self, view: memoryview) -> int:
        self._check_magic(view)
        version = wire.PREAMBLE.unpack_from(view)[1]
        if version != wire.VERSION:
            raise ProtocolError(f"the peer speaks version {version} of the protocol, we speak {wire.VERSION}")
        self._greeted = True
        return wire.PREAMBLE.size

    def _check_magic(self, begun: Buffer) -> None:
        if not wire.MAGIC.startswith(bytes(begun[: len(wire.MAGIC)])):
            raise ProtocolError("the peer does not speak sidestage's protocol")


def _cut(view: memoryview, start: int, end: int) -> Buffer:
    part = view[start:end]
    return part if end - start > wire.MAX_RECORD and (end - start) * 2 > len(view) else bytes(part)
