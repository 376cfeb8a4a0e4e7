"""accept and accept4: the program sees the real client, also in the address that accept itself returns."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from typing import Any

from sidestage.trap import sockets
from sidestage.trap.sockets import Address, Listener, Sockets
from sidestage.trap.supervisor import Call, Supervisor

_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("accept", lambda call: _accept(table, call, 0))
    sup.on("accept4", lambda call: _accept(table, call, call.args[3]))
    sup.on_event("peer", lambda event: _announced(table, event))


def _announced(table: Sockets, event: dict[str, Any]) -> None:
    sockets.note(table.arriving, event["port"], (tuple(event["addr"]), tuple(event["local"])))


def _accept(table: Sockets, call: Call, flags: int) -> None:
    if not table.listeners:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    known = table.listeners.get(sockets.inode(sock))
    if known is None or flags & ~_FLAGS:
        sock.close()
        call.cont()  # not the target's, or the kernel says what is wrong
        return

    def attempt() -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if not poll.poll(0):
            return False
        # All accepts of this listener come through here, one at a time: what was ready can't be taken by another.
        end, peer = sock.accept()
        _give(table, call, known, end, peer[:2], flags)
        return True

    try:
        if attempt():
            sock.close()
        elif fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK:
            sock.close()
            call.fail(errno.EAGAIN)
        else:
            sockets.hold(call, sock, attempt)
    except OSError:
        sock.close()
        raise


def _give(table: Sockets, call: Call, known: Listener, end: socket.socket, peer: Address, flags: int) -> None:
    with end:
        arrived = table.arriving.pop(peer[1], None)
        if arrived is None and sockets.is_loopback(peer[0]):
            call.sup.broker.poll()  # session told us before it connected
            arrived = table.arriving.pop(peer[1], None)
        if arrived:
            table.remember(sockets.inode(end), arrived[0], (arrived[1][0], known.asked[1]))
        elif known.real[1] != known.asked[1]:
            sockets.note(table.names, sockets.inode(end), (known.real[0], known.asked[1]))
        if call.args[1]:
            try:
                sockets.write_address(call, call.args[1], call.args[2], sockets.pack(end.family, arrived[0] if arrived else peer))
            except OSError:
                call.fail(errno.EFAULT)  # the connection is lost with it, as in the kernel
                return
        end.setblocking(not flags & socket.SOCK_NONBLOCK)
        call.give(os.dup(end.fileno()), cloexec=bool(flags & socket.SOCK_CLOEXEC))
