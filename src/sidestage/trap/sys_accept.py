"""accept and accept4: the program sees the real client, also in the address that accept itself returns."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket

from sidestage.trap import sockets
from sidestage.trap.sockets import Sockets
from sidestage.trap.supervisor import Call, Supervisor


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("accept", lambda call: _accept(table, call, 0))
    sup.on("accept4", lambda call: _accept(table, call, call.args[3]))
    sup.on_event("peer", lambda event: table.arriving.__setitem__(event["port"], tuple(event["addr"])))


def _accept(table: Sockets, call: Call, flags: int) -> None:
    if not table.listeners:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    if sockets.inode(sock) not in table.listeners:
        sock.close()
        call.cont()
        return

    def attempt() -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if not poll.poll(0):
            return False
        # All accepts of this listener come through here, one at a time: what was ready can't be taken by another.
        end, peer = sock.accept()
        _give(table, call, end, peer[:2], flags)
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


def _give(table: Sockets, call: Call, end: socket.socket, peer: sockets.Address, flags: int) -> None:
    with end:
        real = table.arriving.pop(peer[1], None)
        if real is None and peer[0].removeprefix("::ffff:") in ("127.0.0.1", "::1"):
            call.sup.broker.poll()  # session told us before it connected
            real = table.arriving.pop(peer[1], None)
        if real is not None:
            table.remember(sockets.inode(end), real)
        if call.args[1]:
            sockets.write_address(call, call.args[1], call.args[2], sockets.pack(end.family, real or peer))
        end.setblocking(not flags & socket.SOCK_NONBLOCK)
        call.give(os.dup(end.fileno()), cloexec=bool(flags & socket.SOCK_CLOEXEC))
