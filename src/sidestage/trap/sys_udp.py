"""Datagrams with an address: those of an unconnected socket go by way of one relay for each remote address.

sendto and recvfrom come here only with an address. The msg family carries it in memory, where a filter can't look, so each of
its calls comes; those that have nothing to do with an address of the target are continued at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable

from sidestage.trap import message, relays, sockets
from sidestage.trap.message import Message
from sidestage.trap.sockets import Sockets
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_connect import MAX_SOCKADDR

MAX_RELAYS = 256  # for one socket; the oldest is forgotten

Sent = Callable[[int], None]  # told how many bytes went out


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("sendto", lambda call: _sendto(table, call))
    sup.on("sendmsg", lambda call: _sendmsg(table, call))
    sup.on("sendmmsg", lambda call: _sendmmsg(table, call))
    sup.on("recvfrom", lambda call: _recvfrom(table, call))
    sup.on("recvmsg", lambda call: _recvmsg(table, call))
    sup.on("recvmmsg", lambda call: _recvmmsg(table, call))
    sup.on_event("refused", lambda event: _refused(table, sup, event["port"]))


def _sendto(table: Sockets, call: Call) -> None:
    where, length = call.args[4], call.args[5] & 0xFFFFFFFF

    def data() -> bytes:
        message.fits_datagram(call.args[2])
        return call.read(call.args[1], call.args[2]) if call.args[2] else b""

    _send(table, call, where, length, data, call.ret)


def _sendmsg(table: Sockets, call: Call) -> None:
    one = Message.read(call, call.args[1])
    _send(table, call, one.name, one.name_size, lambda: one.gather(call), call.ret)


def _sendmmsg(table: Sockets, call: Call) -> None:
    """The first of its messages; a caller sends the rest with the next call, as after any short count (sendmmsg(2))."""
    one = Message.read(call, call.args[1])

    def sent(size: int) -> None:
        call.write(call.args[1] + message.SIZE, size.to_bytes(4, "little"))
        call.ret(1)

    _send(table, call, one.name, one.name_size, lambda: one.gather(call), sent)


def _send(table: Sockets, call: Call, where: int, length: int, data: Callable[[], bytes], sent: Sent) -> None:
    address = sockets.parse(call.read(where, length)) if where and 16 <= length <= MAX_SOCKADDR else None
    if address is None:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    remote = None
    if sockets.is_icmp(call.sup, sock, address):
        sock.close()
        call.cont()
        return
    inet = sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and not (sockets.is_loopback(address[0]) and table.is_own(call.sup.network, "udp", address[1])):
        remote = call.sup.policy.connect(6 if sock.family == socket.AF_INET6 else 4, *address, "udp")
    if remote is None or call.sup.skipped(call.tid):
        sock.close()
        call.cont()
        return
    inode = sockets.inode(sock)
    if inode not in table.relays:
        sockets.note(table.relays, inode, {})
        sockets.note(table.holders, inode, (call.tid, call.args[0]))
    known = table.relays[inode]

    def send(relay: sockets.Address) -> None:
        with sock:
            try:
                sent(sock.sendto(payload, socket.MSG_DONTWAIT, (sockets.loopback(sock), relay[1])))
            except OSError as error:
                call.fail(error.errno or errno.EIO)

    def made(port: int, code: int, _local: object) -> None:
        if code:
            sock.close()
            call.fail(code)
            return
        known[address] = (relays.LOOPBACK, port)
        if len(known) > MAX_RELAYS:
            del known[next(iter(known))]
        send(known[address])

    try:
        payload = data()
    except OSError:
        sock.close()
        raise
    if address in known:
        send(known[address])
    else:
        relays.make(call.sup, remote, sock, made)


def _refused(table: Sockets, sup: Supervisor, port: int) -> None:
    """The target refused a datagram that went to the relay `port`: session needs the program's socket to tell it so."""
    fds: list[int] = []
    for inode, known in table.relays.items():
        if any(relay[1] == port for relay in known.values()) and inode in table.holders:
            with contextlib.suppress(OSError):
                fds.append(sup.duplicate(*table.holders[inode]))
                if os.fstat(fds[-1]).st_ino != inode:  # the number is another file's by now
                    os.close(fds.pop())
            break
    sup.broker.tell("refuse", {"port": port}, fds)
    for fd in fds:
        os.close(fd)


def _recvfrom(table: Sockets, call: Call) -> None:
    def take(data: bytes, source: bytes) -> int:
        call.write(call.args[1], data[: call.args[2]])
        sockets.write_address(call, call.args[4], call.args[5], source)
        return call.args[2]

    _receive(table, call, call.args[3], take, call.ret)


def _recvmsg(table: Sockets, call: Call) -> None:
    if not table.relays:
        call.cont()
        return
    one = Message.read(call, call.args[1])
    _receive(table, call, call.args[2], lambda data, source: one.scatter(call, data, source), call.ret)


def _recvmmsg(table: Sockets, call: Call) -> None:
    if not table.relays:
        call.cont()
        return
    one = Message.read(call, call.args[1])

    def got(size: int) -> None:
        call.write(call.args[1] + message.SIZE, size.to_bytes(4, "little"))
        call.ret(1)

    _receive(table, call, call.args[3], lambda data, source: one.scatter(call, data, source), got)


def _receive(table: Sockets, call: Call, flags: int, take: Callable[[bytes, bytes], int], got: Sent) -> None:
    """`take(data, sockaddr)` writes both to the caller and returns the room that it had."""
    if not table.relays:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    known = table.relays.get(sockets.inode(sock))
    if not known:
        sock.close()
        call.cont()
        return
    flags &= 0xFFFFFFFF

    def attempt() -> bool:
        try:
            data, source = sock.recvfrom(65536, socket.MSG_DONTWAIT | (flags & socket.MSG_PEEK))
        except BlockingIOError:
            return False
        real = next((remote for remote, relay in known.items() if relay[1] == source[1]), source[:2])
        room = take(data, sockets.pack(sock.family, real))
        got(len(data) if flags & socket.MSG_TRUNC else min(len(data), room))
        return True

    try:
        if attempt():
            sock.close()
        elif flags & socket.MSG_DONTWAIT or fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK:
            sock.close()
            call.fail(errno.EAGAIN)
        else:
            sockets.hold(call, sock, attempt)
    except OSError:
        sock.close()
        raise
