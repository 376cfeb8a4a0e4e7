"""connect: the program's own socket is connected over loopback to session, once the target's side is (pending.py)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Any

from sidestage.trap import relays, sockets
from sidestage.trap.pending import Pending
from sidestage.trap.ports import Decision
from sidestage.trap.sockets import Sockets
from sidestage.trap.supervisor import Call, Supervisor

MAX_SOCKADDR = 128  # sizeof(struct sockaddr_storage)


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("connect", lambda call: _connect(table, call))
    sup.on("getsockopt", lambda call: _so_error(table, call))


def _connect(table: Sockets, call: Call) -> None:
    length = call.args[2] & 0xFFFFFFFF
    if not 2 <= length <= MAX_SOCKADDR:
        call.cont()
        return
    raw = call.read(call.args[1], length)
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_UNIX:
        _unix(call, raw)
        return
    address = sockets.parse(raw)
    if address is None:
        if family == socket.AF_UNSPEC:  # connect(2): dissolves the association
            with sockets.take(call, call.args[0]) as sock:
                table.forget(sockets.inode(sock))
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    held = False
    try:
        held = _inet(table, call, sock, raw, address)
    finally:
        if not held:
            sock.close()


def _inet(table: Sockets, call: Call, sock: socket.socket, raw: bytes, address: sockets.Address) -> bool:
    """True when the socket is still needed."""
    kind = sockets.KINDS.get(sock.type)
    inode = sockets.inode(sock)
    inet = sock.family in (socket.AF_INET, socket.AF_INET6) and kind and sockets.fits(sock, raw)
    if sockets.is_icmp(call.sup, sock, address):
        call.cont()
        return False
    bound = table.listeners.get(inode) if kind == "tcp" else None
    if bound and not bound.listening:  # bound to have this port as a client
        del table.listeners[inode]
    pending = table.pending.get(inode)
    if pending and not fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK:
        pending.wait(call)  # restarted after a signal, or asked for once more
        return False
    if not inet or not kind or (kind == "tcp" and (inode in table.peers or inode in table.listeners)):
        call.cont()
        return False
    failed = abs(table.errors.pop(inode, 0))
    if failed:  # a pending connect() that failed: the next one tells, once
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # as in _so_error
        call.fail(failed)
        return False
    table.forget(inode)
    if _to_itself(table, call, sock, kind, address):
        return False
    remote = call.sup.policy.connect(6 if sock.family == socket.AF_INET6 else 4, *address, kind)
    if remote is None or call.sup.skipped(call.tid):
        call.cont()
        return False
    if kind == "udp":
        _udp(table, call, sock, inode, address, remote)
        return True
    blocking = not fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    pending = Pending(call.sup.network, table, sock, address, bound.asked[1] if bound else None)
    via = list(pending.hole.address)
    call.sup.broker.request("connect", {**sockets.args_of(remote), "via": via, "held": blocking}, pending.told, [sock.fileno()])
    if blocking:
        pending.wait(call)
    else:
        call.fail(errno.EINPROGRESS)
    return True


def _to_itself(table: Sockets, call: Call, sock: socket.socket, kind: str, address: sockets.Address) -> bool:
    """The program talks to a socket of its own, over the loopback: that is here. True when the call was answered."""
    host, port = sockets.plain(address[0]), address[1]
    if not sockets.is_loopback(host) and host not in sockets.WILDCARDS:
        return False
    own = table.own_listener(port) if kind == "tcp" else None
    if own is None:
        if not table.is_own(call.sup.network, kind, port):
            return False
        call.cont()
        return True
    code = sock.connect_ex((sockets.loopback(sock) if own.real[0] != "::1" else "::1", own.real[1]))
    if code in (0, errno.EINPROGRESS) and own.real[1] != port:
        table.remember(sockets.inode(sock), address)
    call.fail(code) if code else call.ret()
    return True


def _udp(
    table: Sockets, call: Call, sock: socket.socket, inode: int, address: sockets.Address, remote: sockets.Address
) -> None:
    def made(port: int, code: int, local: list[Any] | None) -> None:
        with sock:
            code = code or sock.connect_ex((sockets.loopback(sock), port))
            if code:
                call.fail(code)
            else:
                table.remember(inode, address, _own_name(sock, local))
                sockets.note(table.relays, inode, {address: (relays.LOOPBACK, port)})  # c-ares compares what recvfrom says
                sockets.note(table.holders, inode, (call.tid, call.args[0]))
                call.ret()

    relays.make(call.sup, remote, sock, made)


def _own_name(sock: socket.socket, told: list[Any] | None) -> sockets.Address | None:
    """The target's address with the port that the socket has here: it may have asked for it."""
    return (told[0], sock.getsockname()[1]) if told else None


def _unix(call: Call, raw: bytes) -> None:
    name = raw[2:]
    path = "@" + os.fsdecode(name[1:]) if name[:1] == b"\0" else os.fsdecode(name.split(b"\0", 1)[0])
    if not call.sup.policy.unix(path) or call.sup.skipped(call.tid):
        if path.startswith("/") and call.sup.policy.path(path, False)[0] is Decision.NOT_FOUND:
            call.fail(errno.ENOENT)
        else:
            call.cont()
        return
    sock = sockets.take(call, call.args[0])
    kind = {socket.SOCK_STREAM: "stream", socket.SOCK_SEQPACKET: "seqpacket"}.get(sock.type)
    if kind is None:
        sock.close()
        call.cont()
        return

    def done(answer: dict[str, object], code: int, _fds: list[int]) -> None:
        with sock:
            code = code or sock.connect_ex("\0" + str(answer["relay"]))
            call.fail(code) if code else call.ret()

    call.sup.broker.request("unix", {"path": "\0" + path[1:] if path[0] == "@" else path, "type": kind}, done)


def _so_error(table: Sockets, call: Call) -> None:
    if not table.errors:
        call.cont()
        return
    with sockets.take(call, call.args[0]) as sock:
        inode = sockets.inode(sock)
        code = table.errors.get(inode, 0)
        if code <= 0:
            call.cont()
            return
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # what our shutdown left, ECONNRESET, is none of its business
    table.errors[inode] = -errno.ECONNABORTED  # what a further connect() says (inet_stream_connect in net/ipv4/af_inet.c)
    call.write(call.args[3], struct.pack("=i", code))
    call.write(call.args[4], struct.pack("=i", 4))
    call.ret()
