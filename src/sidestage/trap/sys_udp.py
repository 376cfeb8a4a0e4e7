"""sendto and recvfrom with an address: datagrams of an unconnected socket go by way of one relay for each remote address."""

from __future__ import annotations

import errno
import fcntl
import os
import socket

from sidestage.trap import sockets
from sidestage.trap.sockets import Sockets
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_connect import MAX_SOCKADDR

MAX_DATAGRAM = 65507  # of IPv4: 65,535 less two headers
MAX_RELAYS = 256  # for one socket; the oldest is forgotten
_FLAGS = socket.MSG_PEEK | socket.MSG_TRUNC


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("sendto", lambda call: _sendto(table, call))
    sup.on("recvfrom", lambda call: _recvfrom(table, call))


def _sendto(table: Sockets, call: Call) -> None:
    length = call.args[5] & 0xFFFFFFFF
    address = sockets.parse(call.read(call.args[4], length)) if 16 <= length <= MAX_SOCKADDR else None
    if address is None:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        sock.close()
        call.cont()
        return
    remote = call.sup.policy.connect(6 if sock.family == socket.AF_INET6 else 4, *address, "udp")
    if remote is None or call.args[2] > MAX_DATAGRAM:
        sock.close()
        call.cont()
        return
    data = call.read(call.args[1], call.args[2]) if call.args[2] else b""
    inode = sockets.inode(sock)
    relays = table.relays.setdefault(inode, {})

    def send(relay: sockets.Address) -> None:
        with sock:
            try:
                call.ret(sock.sendto(data, socket.MSG_DONTWAIT, (sockets.loopback(sock), relay[1])))
            except OSError as error:
                call.fail(error.errno or errno.EIO)

    def done(answer: dict[str, list[int]], code: int, _fds: list[int]) -> None:
        if code:
            sock.close()
            call.fail(code)
            return
        relays[address] = ("127.0.0.1", answer["relay"][1])
        if len(relays) > MAX_RELAYS:
            del relays[next(iter(relays))]
        send(relays[address])

    if address in relays:
        send(relays[address])
    else:
        call.sup.broker.request("udp", {**sockets.args_of(remote), "family": 4}, done)


def _recvfrom(table: Sockets, call: Call) -> None:
    if not table.relays:
        call.cont()
        return
    sock = sockets.take(call, call.args[0])
    relays = table.relays.get(sockets.inode(sock))
    if not relays:
        sock.close()
        call.cont()
        return
    flags = call.args[3] & 0xFFFFFFFF

    def attempt() -> bool:
        try:
            data, source = sock.recvfrom(65536, socket.MSG_DONTWAIT | (flags & socket.MSG_PEEK))
        except BlockingIOError:
            return False
        real = next((remote for remote, relay in relays.items() if relay[1] == source[1]), source[:2])
        room = call.args[2]
        call.write(call.args[1], data[:room])
        sockets.write_address(call, call.args[4], call.args[5], sockets.pack(sock.family, real))
        call.ret(len(data) if flags & socket.MSG_TRUNC else min(len(data), room))
        return True

    if attempt():
        sock.close()
    elif flags & socket.MSG_DONTWAIT or fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK:
        sock.close()
        call.fail(errno.EAGAIN)
    else:
        sockets.hold(call, sock, attempt)
