"""What a session tells of itself while it lives, to tools that ask: JSON lines on a socket that only its owner can open.

The name is an abstract one (unix(7)), so nothing is left behind whatever dies: `@sidestage-UID-SESSION`. Who connects gets a line
`about` the session, what has happened lately, then what happens. A reader that is too slow misses lines and is told how many;
without readers an event costs a tuple. A reader may wish for something: `{"do": "stop"}` ends the session; others are answered by
who registered them, in a line of that type, to this reader alone.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sidestage.stream.loop import Loop

HISTORY = 2000  # events kept for those who come later
MAX_BEHIND = 4 << 20  # bytes kept for a reader that doesn't read
MAX_READERS = 16
MAX_REQUEST = 4096

_encode = json.JSONEncoder(separators=(",", ":"), default=lambda value: value() if callable(value) else str(value)).encode


def address(session: str) -> str:
    """The name of a session's socket, with its NUL."""
    return f"\0sidestage-{os.getuid()}-{session}"


class Feed:
    """`about` is what the session is: target, command and so on; `stop` ends it."""

    def __init__(self, loop: Loop, session: str, about: dict[str, Any], stop: Callable[[], None]) -> None:
        self._loop, self._stop = loop, stop
        self.about = {"type": "about", "session": session, "pid": os.getpid(), "started": time.time(), **about}
        self._start = time.monotonic()
        self._past: deque[tuple[float, str, dict[str, Any]]] = deque(maxlen=HISTORY)
        self._readers: set[_Reader] = set()
        self._wishes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self._listeners: list[Callable[[str, dict[str, Any]], None]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sock.bind(address(session))
        self._sock.listen(MAX_READERS)
        loop.watch(self._sock.fileno(), select.EPOLLIN, self._arrived)

    def on(self, wish: str, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """`answer` gives the fields of the line that answers `wish`."""
        self._wishes[wish] = answer

    def tell(self, kind: str, /, **fields: Any) -> None:
        """An event; `fields` must not change afterwards. A field may be a function: it is called when somebody reads the event."""
        now = time.monotonic() - self._start
        self._past.append((now, kind, fields))
        for listener in self._listeners:
            listener(kind, fields)
        if self._readers:
            line = _line(now, kind, fields)
            for reader in list(self._readers):
                reader.send(line)

    def listen(self, listener: Callable[[str, dict[str, Any]], None]) -> None:
        """Hear every event from now on, in this process."""
        self._listeners.append(listener)

    @property
    def watched(self) -> bool:
        """Is there anybody for whom details are worth their cost?"""
        return bool(self._readers or self._listeners)

    def _arrived(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.getuid(), 0) or len(self._readers) >= MAX_READERS:
            sock.close()
            return
        reader = _Reader(self._loop, sock, self._readers.discard, self._asked)
        self._readers.add(reader)
        reader.send(_encode(self.about).encode() + b"\n")
        for event in self._past:
            reader.send(_line(*event))

    def _asked(self, reader: _Reader, line: bytes) -> None:
        try:
            wish = json.loads(line)
        except ValueError:
            return
        what = wish.get("do") if isinstance(wish, dict) else None
        if what == "stop":
            self._stop()
        elif isinstance(what, str) and what in self._wishes:
            reader.send(_line(time.monotonic() - self._start, what, self._wishes[what](wish)))


class _Reader:
    def __init__(
        self, loop: Loop, sock: socket.socket, gone: Callable[[_Reader], None], asked: Callable[[_Reader, bytes], None]
    ) -> None:
        self._loop, self._sock, self._gone, self._asked = loop, sock, gone, asked
        self._out: deque[bytes] = deque()
        self._size = self._missed = 0
        self._request = b""
        sock.setblocking(False)
        loop.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def send(self, line: bytes) -> None:
        if self._size + len(line) > MAX_BEHIND:
            self._missed += 1
            return
        self._out.append(line)
        self._size += len(line)
        if len(self._out) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._sock.send(self._out[0])
                self._size -= sent
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                    break
                self._out.popleft()
                if not self._out and self._missed:
                    line = _encode({"type": "missed", "events": self._missed}).encode() + b"\n"
                    self._missed = 0
                    self._out.append(line)
                    self._size += len(line)
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._loop.change(self._sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._out else 0))

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT and self._sock.fileno() >= 0:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self._request) > MAX_REQUEST:
            self._close()
            return
        *lines, self._request = (self._request + data).split(b"\n")
        for line in lines:
            self._asked(self, line)

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._gone(self)


def _line(at: float, kind: str, fields: dict[str, Any]) -> bytes:
    return _encode({"type": kind, "at": round(at, 6), **fields}).encode() + b"\n"


def variables(raw: bytes) -> dict[str, str]:
    """The target's environment for those who look on: secrets are x's."""
    from sidestage.record.mask import environment

    pairs = (item.partition("=") for item in environment(raw).decode(errors="replace").split("\0"))
    return {name: value for name, sep, value in pairs if sep}
