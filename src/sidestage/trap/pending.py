"""A connect() to the target that is under way: the program's socket is in SYN_SENT, as it would be there, until session answers.

It stands towards a *hole*, a listener whose queue is full, which makes the kernel drop SYNs: so the socket stays truly pending
until session completes it by simultaneous open from the hole's port, or we shut it down; its SO_ERROR is then the target's.

A blocking connect() is held by us meanwhile. Whatever ends it natively ends it here: when it is connected, or a signal waits for
its thread, the kernel is let on with it, which then finds the socket connected, or interrupts or restarts the call as it always
does (__inet_stream_connect in net/ipv4/af_inet.c). A restart is another call for the same socket, which waits on. At the end of
SO_SNDTIMEO, or after a signal without SA_RESTART, the connection goes on being made, and poll(2) tells its end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import select
import socket
import struct
import time
from typing import Any

from sidestage.trap import sockets
from sidestage.trap.network import Network
from sidestage.trap.sockets import SIGNAL_CHECK, Address, Sockets
from sidestage.trap.supervisor import Call

_RST_ON_CLOSE = struct.pack("=ii", 1, 0)  # struct linger
_TCP_CLOSE = 7  # include/net/tcp_states.h
_FILL_TIMEOUT = 1000  # milliseconds; it is a matter of microseconds


class Hole:
    """One serves all connects of an address family, until its port has no more numbers for their ends."""

    def __init__(self, network: Network, host: str) -> None:
        self._listener = network.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # session binds to the same port
            self._listener.setsockopt(socket.SOL_SOCKET, option, 1)
        self._listener.bind((host, 0))
        self._listener.listen(0)
        self.address: Address = self._listener.getsockname()[:2]
        # The one place in the queue: the kernel then drops SYNs (tcp_conn_request in net/ipv4/tcp_input.c). A filter that drops
        # packets (SO_ATTACH_FILTER) would do the same, but not every kernel lets ordinary users attach one.
        with network.socket(self._listener.family) as filler:
            filler.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            filler.connect(self.address)
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.poll(_FILL_TIMEOUT)

    def __del__(self) -> None:
        self._listener.close()


_holes: dict[tuple[tuple[int, int], str], Hole] = {}


def enter(network: Network, sock: socket.socket) -> Hole:
    """Put `sock` in SYN_SENT. Raises OSError."""
    mine = sockets.loopback(sock)
    host = sockets.plain(mine)
    place = network.ident, host
    hole = _holes.get(place) or _holes.setdefault(place, Hole(network, host))
    code = _connect(sock, (mine, hole.address[1]))
    if code == errno.EADDRNOTAVAIL:  # all numbers are taken towards this port, or the one that the socket is bound to
        hole = _holes[place] = Hole(network, host)
        code = _connect(sock, (mine, hole.address[1]))
    if code != errno.EINPROGRESS:
        raise OSError(code or errno.EIO, "connect")
    return hole


def _connect(sock: socket.socket, address: Address) -> int:
    """Without waiting: for these microseconds a blocking socket, which is the program's too, isn't one."""
    flags = fcntl.fcntl(sock, fcntl.F_GETFL)
    if flags & os.O_NONBLOCK:
        return sock.connect_ex(address)
    fcntl.fcntl(sock, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        return sock.connect_ex(address)
    finally:
        fcntl.fcntl(sock, fcntl.F_SETFL, flags)


class Pending:
    """Session's answer comes to `told`; blocking calls `wait` for it. `sock` is ours to close."""

    def __init__(
        self, network: Network, table: Sockets, sock: socket.socket, address: Address, bound: int | None
    ) -> None:
        """`bound`: the port that the program asked for, if it did. Raises OSError, and `sock` stays the caller's."""
        self.hole = enter(network, sock)
        self._table, self._sock, self._address, self._bound = table, sock, address, bound
        self._inode = sockets.inode(sock)
        self._waiting: list[Call] = []
        self._late = errno.EINPROGRESS
        table.pending[self._inode] = self
        table.remember(self._inode, address)

    def wait(self, call: Call) -> None:
        seconds, micros = struct.unpack("=qq", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
        self._waiting.append(call)
        self._look(call, time.monotonic() + seconds + micros / 1e6 if seconds or micros else math.inf, self._late)
        self._late = errno.EALREADY  # what a second one is told

    def _look(self, call: Call, deadline: float, late: int) -> None:
        if call.answered:
            return
        left = deadline - time.monotonic()
        if not call.valid():
            self._waiting.remove(call)
        elif sockets.interrupted(call.tid):
            self._waiting.remove(call)
            self._go_on(call, connected=False)
        elif left <= 0:
            self._waiting.remove(call)
            call.fail(late)
        else:
            call.sup.later(min(SIGNAL_CHECK, left), lambda: self._look(call, deadline, late))

    def told(self, answer: dict[str, Any], code: int, _fds: list[int]) -> None:
        self._table.pending.pop(self._inode, None)
        waiting, self._waiting = [call for call in self._waiting if call.valid()], []
        with self._sock:
            if code:
                self._failed(code, waiting)
            else:
                if answer.get("local"):
                    host, port = answer["local"]
                    self._table.remember(self._inode, self._address, (host, self._bound or port))
                for call in waiting:
                    self._go_on(call, connected=True)

    def _go_on(self, call: Call, *, connected: bool) -> None:
        """Never with a socket that was shut down meanwhile: the kernel would connect it to who has that address here."""
        if self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE:
            call.cont()
        elif connected:
            call.ret()  # and was reset since: the next call says so
        else:
            call.fail(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNABORTED)

    def _failed(self, code: int, waiting: list[Call]) -> None:
        self._table.forget(self._inode)
        with contextlib.suppress(OSError):  # closed by the program, so nobody asks
            self._sock.shutdown(socket.SHUT_RDWR)
        if not waiting:
            sockets.note(self._table.errors, self._inode, code)
            return
        self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # what our shutdown left, ECONNRESET, is none of its business
        for call, error in zip(waiting, [code, *[errno.ECONNABORTED] * len(waiting)], strict=False):
            call.fail(error)
