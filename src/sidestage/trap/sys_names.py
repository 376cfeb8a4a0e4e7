"""getpeername, getsockname, uname: what the program would be told beside the target."""

from __future__ import annotations

import os

from sidestage.trap import sockets
from sidestage.trap.sockets import Sockets
from sidestage.trap.supervisor import Call, Supervisor

_FIELD = 65  # struct new_utsname, include/uapi/linux/utsname.h


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("getpeername", lambda call: _getpeername(table, call))
    sup.on("getsockname", lambda call: _getsockname(table, call))
    if sup.hello.hostname:
        here = os.uname()
        fields = (here.sysname, sup.hello.hostname, here.release, here.version, here.machine, "(none)")
        uts = b"".join(field.encode()[: _FIELD - 1].ljust(_FIELD, b"\0") for field in fields)

        def uname(call: Call) -> None:
            call.write(call.args[0], uts)
            call.ret()

        sup.on("uname", uname)


def _getpeername(table: Sockets, call: Call) -> None:
    if not table.peers:
        call.cont()
        return
    with sockets.take(call, call.args[0]) as sock:
        peer = table.peers.get(sockets.inode(sock))
        try:
            sock.getpeername()
        except OSError:
            peer = None  # not connected yet, or not any more: the kernel says so
        if peer is None:
            call.cont()
            return
        raw = sockets.pack(sock.family, peer)
    sockets.write_address(call, call.args[1], call.args[2], raw)
    call.ret()


def _getsockname(table: Sockets, call: Call) -> None:
    if not table.listeners and not table.peers and not table.names and not table.claimed:
        call.cont()
        return
    with sockets.take(call, call.args[0]) as sock:
        inode = sockets.inode(sock)
        if inode in table.peers and inode not in table.names:
            call.sup.broker.poll()  # a pending connect() may just have ended
        known = table.listeners.get(inode)
        name = table.names.get(inode) or table.claimed.get(inode) or (known.asked if known else None)
        if name is None:
            call.cont()
            return
        raw = sockets.pack(sock.family, name)
    sockets.write_address(call, call.args[1], call.args[2], raw)
    call.ret()
