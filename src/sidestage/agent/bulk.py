"""More streams than the one that started the agent: connections to a port on the loopback of our own pod.

The listener is made before we go to the target's network, so the port is where the laptop's port-forward comes out. Whoever
else reaches it has no token: each is good for one connection, for a short time.
"""

from __future__ import annotations

import errno
import hmac
import os
import select
import socket
import time
from typing import Any, Callable, Dict, Optional, Tuple

from sidestage.stream.loop import Loop

TOKEN_BYTES = 32  # as sent: 16 random ones in hexadecimal
TOKEN_SECONDS = 30.0  # from the token to its use
MAX_TOKENS = 16  # not yet used
MAX_WAITING = 8  # connections that have not shown a token yet
GREETING_SECONDS = 10.0  # for a connection to show it
MAX_REFUSED = 64  # connections with a wrong one; then the port is closed for good


def listen() -> Optional[socket.socket]:
    """On loopback only; None where there is no such address."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((host, 0))
            sock.listen(MAX_WAITING)
        except OSError:
            sock.close()
        else:
            return sock
    return None


class Bulk:
    """Each connection that was let in goes to what its ticket was asked for with."""

    def __init__(self, loop: Loop, listener: Optional[socket.socket]) -> None:
        self._loop, self._listener = loop, listener
        self._tokens: Dict[bytes, Tuple[float, Callable[[int], None]]] = {}  # -> when it expires, and whom it leads to
        self._waiting = self._refused = 0
        if listener:
            loop.watch(listener.fileno(), select.EPOLLIN, self._arrived)

    @property
    def open(self) -> bool:
        return self._listener is not None

    def ticket(self, serve: Callable[[int], None]) -> Dict[str, Any]:
        """{port, token} for one connection, which is for `serve(fd)`; raises OSError."""
        if self._listener is None:
            raise OSError(errno.EOPNOTSUPP, "this agent has no port for bulk")
        now = time.monotonic()
        self._tokens = {token: kept for token, kept in self._tokens.items() if kept[0] > now}
        if len(self._tokens) >= MAX_TOKENS:
            raise OSError(errno.EAGAIN, "too many tokens that nobody used")
        token = os.urandom(TOKEN_BYTES // 2).hex()
        self._tokens[token.encode()] = now + TOKEN_SECONDS, serve
        return {"port": self._listener.getsockname()[1], "token": token}

    def _arrived(self, _events: int) -> None:
        if self._listener is None:
            return
        try:
            sock = self._listener.accept()[0]
        except OSError:
            return
        if self._waiting >= MAX_WAITING:
            sock.close()
            return
        self._waiting += 1
        _Guest(self._loop, sock, self._judge)

    def _judge(self, sock: socket.socket, shown: bytes) -> None:
        self._waiting -= 1
        found = [token for token in self._tokens if hmac.compare_digest(token, shown)]  # compares with each, in constant time
        if found:
            expires, serve = self._tokens.pop(found[0])
            if expires > time.monotonic():
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(sock.detach())
                return
        sock.close()
        self._refused += 1
        if self._refused >= MAX_REFUSED and self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None


class _Guest:
    """A connection that has to show a token: its first bytes."""

    def __init__(self, loop: Loop, sock: socket.socket, judge: Callable[[socket.socket, bytes], None]) -> None:
        self._loop, self._sock, self._judge, self._shown = loop, sock, judge, b""
        sock.setblocking(False)
        loop.watch(sock.fileno(), select.EPOLLIN, self._ready)
        self._timer = loop.later(GREETING_SECONDS, self._end)

    def _ready(self, _events: int) -> None:
        try:
            data = self._sock.recv(TOKEN_BYTES - len(self._shown))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._shown += data
        if not data or len(self._shown) == TOKEN_BYTES:
            self._end()

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._judge(self._sock, self._shown)
