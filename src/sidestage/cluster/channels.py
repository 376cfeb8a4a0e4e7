"""Kubernetes' exec inside a WebSocket, sans-IO: v5.channel.k8s.io, and v4 where the cluster is older.

The first byte of a message names its channel (k8s.io/apimachinery/pkg/util/remotecommand). `Channels` is the face that relay.py
wants of a stream, here and in spdy.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from sidestage.cluster import websocket as ws
from sidestage.cluster.websocket import Buffer

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
EXEC_FRAME = 32 << 10  # bytes: no control message waits behind more
MAX_TEXT = 16 << 10  # bytes of standard error and of the status that are kept, their end


class Channels(Protocol):
    """Frames in, frames out."""

    ended: str | None  # why there will be no more
    answers: list[bytes]  # frames that are due to the server

    def feed(self, data: bytes) -> list[Buffer]:
        """The stream's bytes within what the server sent; raises ws.WebSocketError."""
        ...

    def wrap(self, data: Buffer) -> list[Buffer]:
        """Frames that carry our bytes."""
        ...

    def finish(self) -> list[Buffer]:
        """Frames that say that we have no more."""
        ...

    def lost(self) -> str:
        """Why it ended, when the connection did so without a word."""
        ...


class Command:
    """What exec tells of the command it runs, whatever carries the streams."""

    def __init__(self) -> None:
        self.ended: str | None = None
        self.answers: list[bytes] = []
        self._texts: dict[int, bytes] = {}  # by channel: standard error, and the status at the end
        self._error, self._stderr = ERROR, STDERR

    @property
    def stderr(self) -> str:
        return self._text(self._stderr)

    def status(self) -> dict[str, Any]:
        """The Status that the server sends when the command has ended, or could not start; else empty."""
        text = self._text(self._error)
        try:
            told = json.loads(text or "{}")
        except ValueError:
            told = {"message": text}
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

    def lost(self) -> str:
        return self.ended or self._why("the connection was closed")

    def _why(self, closed: str) -> str:
        return str(self.status().get("message") or closed or "the command has ended")

    def _text(self, channel: int) -> str:
        return self._texts.get(channel, b"").decode(errors="replace").strip()

    def _keep(self, channel: int, part: Buffer) -> None:
        self._texts[channel] = (self._texts.get(channel, b"") + part)[-MAX_TEXT:]


EXITED = re.compile(r"^command terminated with exit code (\d+)$", re.MULTILINE)


class Piped(Command):
    """exec by kubectl itself: bytes as they are, and `words`, what it has said so far on standard error, as has the command."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def feed(self, data: bytes) -> list[Buffer]:
        return [data]

    def wrap(self, data: Buffer) -> list[Buffer]:
        return [data]

    def finish(self) -> list[Buffer]:
        return []  # the relay closes it in a moment, if the session's goodbye was not enough

    @property
    def stderr(self) -> str:
        return EXITED.sub("", self._words()).strip()

    def status(self) -> dict[str, Any]:
        """Its own words, where it couldn't start the command."""
        said = self.stderr.splitlines()
        return {"status": "Failure", "message": said[-1]} if said and self.exit_code() is None else {}

    def exit_code(self) -> int | None:
        found = EXITED.search(self._words())
        return int(found[1]) if found else None


class Exec(Command):
    """`protocol` is the one that the server chose: only v5 can close standard input by itself."""

    def __init__(self, protocol: str) -> None:
        super().__init__()
        self._half_close = protocol == EXEC_PROTOCOLS[0]
        self._reader = ws.Reader()
        self._channel = -1

    def feed(self, data: bytes) -> list[Buffer]:
        found: list[Buffer] = []
        for opcode, first, _last, part in self._reader.feed(data):
            if opcode == ws.BINARY:
                if first:
                    if not part:
                        continue
                    self._channel, part = part[0], part[1:]
                if self._channel == STDOUT and part:
                    found.append(part)
                elif part:
                    self._keep(self._channel, part)
            elif opcode == ws.PING:
                self.answers.append(ws.frame(ws.PONG, part))
            elif opcode == ws.CLOSE:
                self.ended = self._why(ws.close_reason(part))
                self.answers.append(ws.frame(ws.CLOSE, part[:2]))
                break
        return found

    def wrap(self, data: Buffer) -> list[Buffer]:
        view = memoryview(data)
        return [ws.frame(ws.BINARY, b"\0", view[at : at + EXEC_FRAME]) for at in range(0, len(view), EXEC_FRAME)]

    def finish(self) -> list[Buffer]:
        return [ws.frame(ws.BINARY, bytes([CLOSE, STDIN])) if self._half_close else ws.frame(ws.CLOSE, b"\x03\xe8")]
