"""bind and listen: a listener that gets the target's traffic is bound to loopback, to another port where the asked is taken."""

from __future__ import annotations

import errno
import socket

from sidestage.trap import sockets
from sidestage.trap.sockets import Listener, Sockets
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_connect import MAX_SOCKADDR

CLOSE_CHECK = 0.5  # seconds; close() isn't trapped, so the end of a listener is found by looking
_WILDCARDS = ("0.0.0.0", "::")
_LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("bind", lambda call: _bind(table, call))
    sup.on("listen", lambda call: _listen(table, call))


def _bind(table: Sockets, call: Call) -> None:
    length = call.args[2] & 0xFFFFFFFF
    address = sockets.parse(call.read(call.args[1], length)) if 16 <= length <= MAX_SOCKADDR else None
    if address is None or not call.sup.policy.listen(*address) or call.sup.skipped(call.tid):
        call.cont()
        return
    with sockets.take(call, call.args[0]) as sock:
        if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
            call.cont()
            return
        code = _bind_here(table, call, sock, address)
    call.fail(code) if code else call.ret()


def _bind_here(table: Sockets, call: Call, sock: socket.socket, asked: sockets.Address) -> int:
    host = sockets.loopback(sock) if asked[0] in _WILDCARDS else asked[0]
    port = call.sup.policy.local_port(asked[1])
    same = [known for known in table.listeners.values() if known.asked[1] == asked[1]]
    shared = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    if same and shared:
        port = same[0].real[1]  # workers that share one port go on sharing
    code = _try(sock, host, port)
    if code == errno.EADDRNOTAVAIL and asked[0] not in _WILDCARDS:
        host = sockets.loopback(sock)  # an address that only the target has
        code = _try(sock, host, port)
    if code == errno.EADDRINUSE and any(known.asked[0] in (asked[0], *_WILDCARDS) for known in same):
        return code  # by the program itself: what it would see in the target
    if code in (errno.EADDRINUSE, errno.EACCES) and port == asked[1]:
        code = _try(sock, host, 0)
        if not code:
            why = "is in use on this machine" if code == errno.EADDRINUSE else "can't be had here"
            call.sup.say(f"port {asked[1]} {why}: the program listens on {host}:{sock.getsockname()[1]} instead")
    if not code:
        real = sock.getsockname()
        table.listeners[sockets.inode(sock)] = Listener(asked, (real[0], real[1]), sock.family)
    return code


def _try(sock: socket.socket, host: str, port: int) -> int:
    try:
        sock.bind((host, port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _listen(table: Sockets, call: Call) -> None:
    sup = call.sup
    with sockets.take(call, call.args[0]) as sock:
        known = table.listeners.get(sockets.inode(sock))
        if known is None or known.listening:
            call.cont()
            return
        backlog = call.args[1] & 0xFFFFFFFF
        try:
            sock.listen(backlog if backlog < 1 << 31 else 0)
        except OSError as error:
            call.fail(error.errno or errno.EINVAL)
            return
    first = table.own_listener(known.asked[1]) is None
    known.listening = True
    if first:
        args = {"port": known.asked[1], "real": list(known.real), "family": 6 if ":" in known.real[0] else 4}
        sup.broker.request("listen", args, lambda *_: None)
        sup.later(CLOSE_CHECK, lambda: _check_closed(table, sup, known.asked[1]))
    call.ret()


def _check_closed(table: Sockets, sup: Supervisor, port: int) -> None:
    """Unsubscribe `port` when the last of its listeners is closed."""
    alive = _listening()
    for inode, known in list(table.listeners.items()):
        if known.listening and known.asked[1] == port and inode not in alive:
            del table.listeners[inode]
    if table.own_listener(port) is None:
        sup.broker.request("unlisten", {"port": port}, lambda *_: None)
    else:
        sup.later(CLOSE_CHECK, lambda: _check_closed(table, sup, port))


def _listening() -> set[int]:
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{name}", encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == _LISTEN_STATE:
                        found.add(int(fields[9]))
        except FileNotFoundError:
            continue  # a kernel without IPv6
    return found
