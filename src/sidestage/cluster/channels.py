"""Kubernetes' streams inside a WebSocket, sans-IO: exec (v5.channel.k8s.io, v4) and port-forward (v4.channel.k8s.io).

The first byte of a message names its channel. Both classes have the same face towards relay.py: `feed` takes what the API
server sent and returns the stream's bytes, `wrap` and `finish` make frames of ours, `answers` holds frames due to the server,
`ended` says why there will be no more. k8s.io/apimachinery/pkg/util/remotecommand, k8s.io/kubelet/pkg/cri/streaming/portforward.
"""

from __future__ import annotations

import json
from typing import Any

from sidestage.cluster import websocket as ws
from sidestage.cluster.websocket import Buffer

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FORWARD_PROTOCOLS = ("v4.channel.k8s.io",)
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
EXEC_FRAME = 32 << 10  # bytes: no control message waits behind more
FORWARD_FRAME = 64 << 10
MAX_TEXT = 16 << 10  # bytes of standard error and of the status that are kept, their end


class Channels:
    """What both have in common: frames in, frames out."""

    data_channel = STDOUT
    frame_size = EXEC_FRAME

    def __init__(self) -> None:
        self.ended: str | None = None
        self.answers: list[bytes] = []
        self._reader = ws.Reader()
        self._channel = -1
        self._texts: dict[int, bytes] = {}

    def feed(self, data: bytes) -> list[Buffer]:
        """The stream's bytes within `data`; raises ws.WebSocketError."""
        found: list[Buffer] = []
        for opcode, first, _last, part in self._reader.feed(data):
            if opcode == ws.BINARY:
                if first:
                    if not part:
                        continue
                    self._channel, part = part[0], part[1:]
                if self._channel == self.data_channel:
                    self._data(part, found)
                elif part:
                    self._texts[self._channel] = (self._texts.get(self._channel, b"") + part)[-MAX_TEXT:]
            elif opcode == ws.PING:
                self.answers.append(ws.frame(ws.PONG, part))
            elif opcode == ws.CLOSE:
                self.ended = self._why(ws.close_reason(part))
                self.answers.append(ws.frame(ws.CLOSE, part[:2]))
                break
        return found

    def _data(self, part: Buffer, found: list[Buffer]) -> None:
        if part:
            found.append(part)

    def wrap(self, data: Buffer) -> list[bytes]:
        view, size = memoryview(data), self.frame_size
        return [ws.frame(ws.BINARY, b"\0", view[at : at + size]) for at in range(0, len(view), size)]

    def finish(self) -> list[bytes]:
        """Our side has no more to say."""
        return [ws.frame(ws.CLOSE, b"\x03\xe8")]

    def lost(self) -> str:
        """Why the stream ended, when the connection did so without a word."""
        return self.ended or self._why("the connection was closed")

    def text(self, channel: int) -> str:
        return self._texts.get(channel, b"").decode(errors="replace").strip()

    def _why(self, closed: str) -> str:
        return closed


class Exec(Channels):
    """`protocol` is the one that the server chose: only v5 can close standard input by itself."""

    def __init__(self, protocol: str) -> None:
        super().__init__()
        self._half_close = protocol == EXEC_PROTOCOLS[0]

    def finish(self) -> list[bytes]:
        return [ws.frame(ws.BINARY, bytes([CLOSE, STDIN]))] if self._half_close else super().finish()

    @property
    def stderr(self) -> str:
        return self.text(STDERR)

    def status(self) -> dict[str, Any]:
        """The Status that the server sends when the command has ended, or could not start; else empty."""
        try:
            told = json.loads(self.text(ERROR) or "{}")
        except ValueError:
            told = {"message": self.text(ERROR)}
        return told if isinstance(told, dict) else {}

    def exit_code(self) -> int | None:
        """The command's, when it ended by itself."""
        status = self.status()
        if status.get("status") == "Success":
            return 0
        for cause in status.get("details", {}).get("causes", ()):
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdecimal():
                return int(cause["message"])
        return None

    def _why(self, closed: str) -> str:
        return str(self.status().get("message") or closed or "the command has ended")


class Forward(Channels):
    """One forwarded port: channel 0 is its data and 1 its error; each begins with the port's number (2 bytes)."""

    data_channel = 0
    frame_size = FORWARD_FRAME

    def __init__(self, protocol: str = "") -> None:
        super().__init__()
        del protocol
        self._skip = 2

    def _data(self, part: Buffer, found: list[Buffer]) -> None:
        if self._skip:
            skipped = min(self._skip, len(part))
            self._skip -= skipped
            part = part[skipped:]
        if part:
            found.append(part)

    def _why(self, closed: str) -> str:
        return self._texts.get(1, b"")[2:].decode(errors="replace").strip() or closed or "the port was closed"
