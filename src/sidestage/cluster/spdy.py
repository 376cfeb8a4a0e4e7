"""As much of SPDY/3.1 as port-forward and exec need, sans-IO: a few streams, opened at the start, without flow control.

It is what the kubelet speaks; the API server passes it on unread, which makes it twice as fast upwards as any WebSocket, whose
frames are unmasked on the way. Where SPDY can't pass, a WebSocket carries the same bytes (kubectl's tunnel, Kubernetes 1.31).
Frames: draft-mbelshe-httpbis-spdy-00; streams: k8s.io/kubelet/pkg/cri/streaming; github.com/moby/spdystream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

from sidestage.cluster import websocket as ws
from sidestage.cluster.channels import Command
from sidestage.cluster.websocket import Buffer, WebSocketError

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"  # as a WebSocket's subprotocol
EXEC_PROTOCOL = "v4.channel.k8s.io"
ERROR_STREAM, DATA_STREAM = 1, 3  # of a port-forward
STREAMS = (1, 3, 5, 7)  # ours are odd, in the order of their opening
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
FRAME = 64 << 10  # bytes in a data frame of ours
TUNNEL_FRAME = 32 << 10
MAX_CONTROL = 64 << 10  # bytes of a control frame; the server's are below 100
MAX_TEXT = 4 << 10  # bytes of an error's text


class Frames:
    """Streams of one connection: `part(stream, data, last)` is told what comes, `send` is the one that we write to."""

    def __init__(self, opened: Sequence[Mapping[str, str]], send: int) -> None:
        self.answers: list[bytes] = _hello(opened)
        self._send = send
        self._held = b""  # an incomplete header or control frame
        self._stream, self._left, self._flags = 0, 0, 0  # of the present data frame

    def read(self, data: bytes) -> Iterator[tuple[int, memoryview, bool]]:
        """(stream, some of its data, is it the last?); stream 0: the connection's end. Raises WebSocketError."""
        if self._held:
            data, self._held = self._held + data, b""
        view, at, end = memoryview(data), 0, len(data)
        while at < end:
            if self._left:
                size = min(self._left, end - at)
                self._left -= size
                yield self._stream, view[at : at + size], not self._left and bool(self._flags & FIN)
                at += size
                continue
            if end - at < 8:
                self._held = data[at:]
                return
            head, rest = struct.unpack_from(">II", data, at)
            size = rest & 0xFFFFFF
            if not head & 0x80000000:
                self._stream, self._flags, self._left = head, rest >> 24, size
                at += 8
                if not size:
                    yield self._stream, view[at:at], bool(self._flags & FIN)
                continue
            if size > MAX_CONTROL:
                raise WebSocketError("a SPDY frame that is too long")
            if end - at < 8 + size:
                self._held = data[at:]
                return
            kind = head & 0xFFFF
            if kind == PING:
                self.answers.append(data[at : at + 8 + size])
            at += 8 + size
            if kind in (RST_STREAM, GOAWAY):
                yield 0, view[at:at], True

    def wrap(self, data: Buffer) -> list[Buffer]:
        view = memoryview(data)
        frames: list[Buffer] = []
        for at in range(0, len(view), FRAME):
            part = view[at : at + FRAME]
            frames += [struct.pack(">II", self._send, len(part)), part]
        return [b"".join(frames)]  # a header by itself would be a TLS record by itself

    def finish(self) -> list[Buffer]:
        return [struct.pack(">II", self._send, FIN << 24)]


class Forward:
    """A connection to `port` in the pod: a channels.Channels."""

    def __init__(self, port: int) -> None:
        pairs = {"port": str(port), "requestid": "0"}
        self._frames = Frames([{"streamtype": "error", **pairs}, {"streamtype": "data", **pairs}], DATA_STREAM)
        self.answers = self._frames.answers
        self.ended: str | None = None
        self._error = b""
        self._open = {DATA_STREAM, ERROR_STREAM}  # containerd ends the first before it says on the second why
        self.wrap, self.finish = self._frames.wrap, self._frames.finish

    def feed(self, data: bytes) -> list[Buffer]:
        """The stream's bytes within `data`; raises WebSocketError."""
        found: list[Buffer] = []
        for stream, part, last in self._frames.read(data):
            if stream == DATA_STREAM and part:
                found.append(part)
            elif stream == ERROR_STREAM:
                self._error = (self._error + part)[:MAX_TEXT]
            if last:
                self._open.discard(stream)
                if not self._open or self._error or stream not in (DATA_STREAM, ERROR_STREAM):
                    self.ended = self.lost()
        return found

    def lost(self) -> str:
        return self._error.decode(errors="replace").strip() or "the port was closed"


class SpdyExec(Command):
    """exec where a WebSocket can't be had, or isn't allowed: many Roles name the verb `create` only, which is this one's."""

    def __init__(self) -> None:
        super().__init__()
        self._error, stdin, self._stdout, self._stderr = STREAMS
        self._frames = Frames([{"streamtype": kind} for kind in ("error", "stdin", "stdout", "stderr")], stdin)
        self.answers = self._frames.answers
        self.wrap, self.finish = self._frames.wrap, self._frames.finish

    def feed(self, data: bytes) -> list[Buffer]:
        found: list[Buffer] = []
        for stream, part, _last in self._frames.read(data):
            if stream == self._stdout and part:
                found.append(part)
            elif stream in (self._error, self._stderr):
                self._keep(stream, part)
        return found


class Tunnel:
    """A Forward inside a WebSocket."""

    def __init__(self, port: int) -> None:
        self._inner, self._reader = Forward(port), ws.Reader()
        self.ended: str | None = None
        self.answers: list[bytes] = []
        self._answer()

    def feed(self, data: bytes) -> list[Buffer]:
        found: list[Buffer] = []
        for opcode, _first, _last, part in self._reader.feed(data):
            if opcode == ws.BINARY:
                found += self._inner.feed(bytes(part))
                self._answer()
            elif opcode == ws.PING:
                self.answers.append(ws.frame(ws.PONG, part))
            elif opcode == ws.CLOSE:
                self.ended = self.ended or ws.close_reason(part) or self.lost()
        self.ended = self.ended or self._inner.ended
        return found

    def _answer(self) -> None:
        if self._inner.answers:
            self.answers.append(ws.frame(ws.BINARY, *self._inner.answers))
            self._inner.answers.clear()

    def wrap(self, data: Buffer) -> list[Buffer]:
        view = memoryview(data)
        pieces = (view[at : at + TUNNEL_FRAME] for at in range(0, len(view), TUNNEL_FRAME))
        return [ws.frame(ws.BINARY, *self._inner.wrap(piece)) for piece in pieces]

    def finish(self) -> list[Buffer]:
        return [ws.frame(ws.CLOSE, b"\x03\xe8")]

    def lost(self) -> str:
        return self._inner.lost()


def _hello(opened: Sequence[Mapping[str, str]]) -> list[bytes]:
    """Opens the streams. Headers are compressed without SPDY's dictionary, which zlib's format lets us do (RFC 1950 2.2)."""
    compressor = zlib.compressobj()
    frames = []
    for stream, headers in zip(STREAMS, opened, strict=False):
        block = struct.pack(">I", len(headers))
        for text in (word for pair in headers.items() for word in pair):
            block += struct.pack(">I", len(text)) + text.encode()
        packed = compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
        flags = FIN if headers["streamtype"] == "error" else 0  # nothing is said on it from here
        frames.append(struct.pack(">HHIIIH", 0x8003, SYN_STREAM, flags << 24 | (10 + len(packed)), stream, 0, 0) + packed)
    return frames
