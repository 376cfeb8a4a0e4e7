"""TLS to an HTTPS proxy, with the API server's TLS inside it.

Python can't wrap a TLS socket in TLS again, so the outer one is pumped by a thread behind an ordinary socket pair. It ends with
either side. A forked child has no such thread: connections through an HTTPS proxy are opened by the process that uses them.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar

from sidestage.cluster.tls import of_others

T = TypeVar("T")
PIECE = 64 << 10  # bytes held each way


def bridge(sock: socket.socket, name: str, prepare: Callable[[socket.socket], None]) -> socket.socket:
    """Our end of a TLS connection over `sock`; `prepare` speaks on it first. Raises OSError."""
    outer = of_others().wrap_socket(sock, server_hostname=name)
    try:
        prepare(outer)
        ours, theirs = socket.socketpair()
    except BaseException:
        outer.close()
        raise
    outer.setblocking(False)
    theirs.setblocking(False)
    threading.Thread(target=_pump, args=(outer, theirs), name="proxy", daemon=True).start()
    return ours


def _pump(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    """One thread for both ways: an SSL object is no place for two."""
    up = down = b""  # what waits to be written: to the proxy, to us
    poll = select.poll()
    try:
        while True:
            poll.register(outer, (0 if down else select.POLLIN) | (select.POLLOUT if up else 0))
            poll.register(inner, (0 if up else select.POLLIN) | (select.POLLOUT if down else 0))
            held = not down and outer.pending()  # decrypted already: the kernel would not tell of it
            events = dict(poll.poll(0 if held else None))
            far, near = events.get(outer.fileno(), 0), events.get(inner.fileno(), 0)
            if up and far:
                up = up[_try(lambda: outer.send(up), 0) :]  # noqa: B023 (called at once)
            if down and near:
                down = down[_try(lambda: inner.send(down), 0) :]  # noqa: B023
            if not down and (held or far):
                piece = _try(lambda: outer.recv(PIECE), None)
                if piece == b"":
                    break
                down = piece or down
            if not up and near:
                piece = _try(lambda: inner.recv(PIECE), None)
                if piece == b"":
                    break
                up = piece or up
    except (OSError, ValueError):
        pass
    finally:
        outer.close()
        inner.close()


def _try(fn: Callable[[], T], otherwise: T) -> T:
    try:
        return fn()
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return otherwise
