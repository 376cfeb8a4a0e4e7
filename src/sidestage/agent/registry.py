"""Several agents on one target, without anybody above them: the first on a port holds it, the others claim through it.

An abstract unix socket in the target's network namespace is both the lock and the door: its name is taken by bind(2) and
given back by the kernel when its holder ends, however it ends. Through it agents speak the protocol that agent and laptop
speak, so a claim of another agent is like one of our own.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional

from sidestage.protocol.messages import Buffer
from sidestage.stream.link import Link

_BACKLOG = 64


def hold(port: int) -> Optional[socket.socket]:
    """The listening lock of `port`; None if somebody has it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind(_name(port))
    except OSError:
        sock.close()
        return None
    sock.listen(_BACKLOG)
    return sock


def connect(port: int) -> socket.socket:
    """To the holder of `port`; raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(_name(port))
        if not trusted(sock):
            raise PermissionError(1, "the name of the port's holder is taken by another user's process")
    except OSError:
        sock.close()
        raise
    return sock


def trusted(sock: socket.socket) -> bool:
    """Abstract names have no permissions (unix(7)): any process of the target could come to this door."""
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return uid in (0, os.geteuid())


def _name(port: int) -> str:
    return f"\0sidestage-steal-{port}"


class Relay:
    """A channel that the holder opened on `near`, carried on to our own laptop on `far`."""

    def __init__(
        self, near: Link, channel: int, far: Link, kind: str, args: Dict[str, Any], done: Callable[["Relay"], None]
    ) -> None:
        self._done = done
        self._near = _End(self, near, channel)
        near.register(channel, self._near)
        self._far = _End(self, far, 0)
        self._near.other, self._far.other = self._far, self._near
        self._far.channel = far.open(kind, args, self._far)

    def end(self) -> None:
        done, self._done = self._done, lambda _: None
        done(self)


class _End:
    other: "_End"

    def __init__(self, relay: Relay, link: Link, channel: int) -> None:
        self._relay, self.link, self.channel = relay, link, channel
        self._out: Deque[Buffer] = deque()  # at most a window: credit is granted when the other side took it
        self._eof = False
        self._ends = 0

    def on_accepted(self, info: Dict[str, Any]) -> None:
        self.other.link.accept(self.other.channel, info)

    def on_refused(self, errno: int, text: str) -> None:
        self.other.link.refuse(self.other.channel, errno, text)
        self._relay.end()

    def on_data(self, data: Buffer) -> None:
        self.other.push(data)

    def on_eof(self) -> None:
        self.other.push(None)

    def on_reset(self) -> None:
        self.other.link.reset(self.other.channel)
        self._relay.end()

    def on_credit(self) -> None:
        self._flush()

    def push(self, data: Optional[Buffer]) -> None:
        if data is None:
            self._eof = True
        else:
            self._out.append(data)
        self._flush()

    def _flush(self) -> None:
        took, out, link = 0, self._out, self.link
        while out:
            room = link.writable(self.channel)
            if not room:
                break
            data = out.popleft()
            if len(data) > room:
                out.appendleft(data[room:])
                data = data[:room]
            link.send(self.channel, data)
            took += len(data)
        if took:
            self.other.link.consumed(self.other.channel, took)
        if self._eof and not out:
            self._eof = False
            link.send_eof(self.channel)
            self._ends += 1
            if self._ends + self.other._ends == 2:
                link.forget(self.channel)
                self.other.link.forget(self.other.channel)
                self._relay.end()
