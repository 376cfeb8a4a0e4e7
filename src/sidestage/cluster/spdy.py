"""As much of SPDY/3.1 as a port-forward needs, sans-IO: one error stream, one data stream, no flow control.

It is what the kubelet speaks; the API server passes it on unread, which makes it twice as fast upwards as any WebSocket, whose
frames are unmasked on the way. Where SPDY can't pass, a WebSocket carries the same bytes (kubectl's tunnel, Kubernetes 1.31).
Frames: draft-mbelshe-httpbis-spdy-00; streams: k8s.io/kubelet/pkg/cri/streaming/portforward; github.com/moby/spdystream.
"""

from __future__ import annotations

import struct
import zlib

from sidestage.cluster import websocket as ws
from sidestage.cluster.websocket import Buffer, WebSocketError

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"  # as a WebSocket's subprotocol
ERROR_STREAM, DATA_STREAM = 1, 3  # ours are odd
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
FRAME = 64 << 10  # bytes in a data frame of ours
TUNNEL_FRAME = 32 << 10
MAX_CONTROL = 64 << 10  # bytes of a control frame; the server's are below 100
MAX_TEXT = 4 << 10  # bytes of an error's text


class Forward:
    """A connection to `port` in the pod. The same face as channels.Channels."""

    def __init__(self, port: int) -> None:
        self.ended: str | None = None
        self.answers: list[bytes] = _hello(port)
        self._held = b""  # an incomplete header or control frame
        self._stream, self._left, self._flags = 0, 0, 0  # of the present data frame
        self._error = b""

    def feed(self, data: bytes) -> list[Buffer]:
        """The stream's bytes within `data`; raises WebSocketError."""
        if self._held:
            data, self._held = self._held + data, b""
        found: list[Buffer] = []
        view, at, end = memoryview(data), 0, len(data)
        while at < end and self.ended is None:
            if self._left:
                size = min(self._left, end - at)
                self._left -= size
                self._data(view[at : at + size], found)
                at += size
                continue
            if end - at < 8:
                self._held = data[at:]
                break
            head, rest = struct.unpack_from(">II", data, at)
            size = rest & 0xFFFFFF
            if not head & 0x80000000:
                self._stream, self._flags, self._left = head, rest >> 24, size
                at += 8
                if not size:
                    self._data(view[at:at], found)
                continue
            if size > MAX_CONTROL:
                raise WebSocketError("a SPDY frame that is too long")
            if end - at < 8 + size:
                self._held = data[at:]
                break
            self._control(head & 0xFFFF, data[at : at + 8 + size])
            at += 8 + size
        return found

    def _data(self, part: memoryview, found: list[Buffer]) -> None:
        if self._stream == DATA_STREAM and part:
            found.append(part)
        elif self._stream == ERROR_STREAM:
            self._error = (self._error + bytes(part))[:MAX_TEXT]
        if not self._left and self._flags & FIN and (self._stream == DATA_STREAM or self._error):
            self.ended = self.lost()

    def _control(self, kind: int, frame: bytes) -> None:
        if kind == PING:
            self.answers.append(frame)
        elif kind in (RST_STREAM, GOAWAY):
            self.ended = self.lost()

    def wrap(self, data: Buffer) -> list[Buffer]:
        view = memoryview(data)
        frames: list[Buffer] = []
        for at in range(0, len(view), FRAME):
            part = view[at : at + FRAME]
            frames += [struct.pack(">II", DATA_STREAM, len(part)), part]
        return [b"".join(frames)]  # a header by itself would be a TLS record by itself

    def finish(self) -> list[Buffer]:
        return [struct.pack(">II", DATA_STREAM, FIN << 24)]

    def lost(self) -> str:
        return self._error.decode(errors="replace").strip() or "the port was closed"


class Tunnel(Forward):
    """The same inside a WebSocket."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._reader = ws.Reader()
        self.answers = [ws.frame(ws.BINARY, *self.answers)]

    def feed(self, data: bytes) -> list[Buffer]:
        found: list[Buffer] = []
        for opcode, _first, _last, part in self._reader.feed(data):
            if opcode == ws.BINARY:
                had = len(self.answers)
                found += super().feed(bytes(part))
                self.answers[had:] = [ws.frame(ws.BINARY, answer) for answer in self.answers[had:]]
            elif opcode == ws.PING:
                self.answers.append(ws.frame(ws.PONG, part))
            elif opcode == ws.CLOSE:
                self.ended = self.ended or ws.close_reason(part) or self.lost()
        return found

    def wrap(self, data: Buffer) -> list[Buffer]:
        view = memoryview(data)
        frames: list[Buffer] = []
        for at in range(0, len(view), TUNNEL_FRAME):
            part = view[at : at + TUNNEL_FRAME]
            frames.append(ws.frame(ws.BINARY, struct.pack(">II", DATA_STREAM, len(part)), part))
        return frames

    def finish(self) -> list[Buffer]:
        return [ws.frame(ws.CLOSE, b"\x03\xe8")]


def _hello(port: int) -> list[bytes]:
    """Opens both streams. Headers are compressed without SPDY's dictionary, which zlib's format lets us do (RFC 1950 2.2)."""
    compressor = zlib.compressobj()
    frames = []
    for stream, kind, flags in ((ERROR_STREAM, "error", FIN), (DATA_STREAM, "data", 0)):
        pairs = {"streamtype": kind, "port": str(port), "requestid": "0"}
        block = struct.pack(">I", len(pairs))
        for text in (word for pair in pairs.items() for word in pair):
            block += struct.pack(">I", len(text)) + text.encode()
        packed = compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
        frames.append(
            struct.pack(">HHIIIH", 0x8003, SYN_STREAM, flags << 24 | (10 + len(packed)), stream, 0, 0) + packed
        )
    return frames
