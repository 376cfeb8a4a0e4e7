"""bind and listen: a listener that gets the target's traffic is bound to loopback, to another port where the asked is taken.

Other sockets are bound as they ask, but by us: a connect() to the loopback must know which ports there are the program's own.
"""

from __future__ import annotations

import errno
import socket

from sidestage.trap import sockets
from sidestage.trap.network import Network
from sidestage.trap.sockets import Listener, Sockets
from sidestage.trap.supervisor import Call, Supervisor
from sidestage.trap.sys_connect import MAX_SOCKADDR

CLOSE_CHECK = 0.5  # seconds; close() isn't trapped, so the end of a listener is found by looking


def install(sup: Supervisor) -> None:
    table = sockets.of(sup)
    sup.on("bind", lambda call: _bind(table, call))
    sup.on("listen", lambda call: _listen(table, call))


def _bind(table: Sockets, call: Call) -> None:
    length = call.args[2] & 0xFFFFFFFF
    raw = call.read(call.args[1], length) if 16 <= length <= MAX_SOCKADDR else b""
    address = sockets.parse(raw)
    if address is None:
        call.cont()
        return
    with sockets.take(call, call.args[0]) as sock:
        kind = sockets.KINDS.get(sock.type)
        if not kind or sock.family not in (socket.AF_INET, socket.AF_INET6) or raw[0] != sock.family:
            call.cont()
            return
        if kind == "tcp" and call.sup.policy.listen(*address) and not call.sup.skipped(call.tid):
            code = _bind_here(table, call, sock, address)
        elif address[0] in sockets.WILDCARDS or sockets.is_loopback(address[0]) or _targets(call.sup, address[0]):
            code = _bind_plain(table, call.sup, sock, address, kind)
        else:
            call.cont()  # an address of this machine
            return
    call.fail(code) if code else call.ret()


def _bind_plain(table: Sockets, sup: Supervisor, sock: socket.socket, asked: sockets.Address, kind: str) -> int:
    code = _try(sock, *asked)
    replaced = code == errno.EADDRNOTAVAIL and _targets(sup, asked[0])
    if replaced:
        code = _try(sock, sockets.loopback(sock), asked[1])
    if not code:
        inode, port = sockets.inode(sock), sock.getsockname()[1]
        sockets.note(table.own, (kind, port), inode)
        if replaced:
            sockets.note(table.claimed, inode, (asked[0], port))
    return code


def _targets(sup: Supervisor, host: str) -> bool:
    """Is it an address of the target?"""
    return sockets.packed(sockets.plain(host)) in {sockets.packed(known) for known in sup.hello.addresses}


def _bind_here(table: Sockets, call: Call, sock: socket.socket, asked: sockets.Address) -> int:
    # In a container's own network all addresses are its own, and published ports lead to others than the loopback.
    elsewhere = asked[0] in sockets.WILDCARDS and not call.sup.network.own
    host = sockets.loopback(sock) if elsewhere else asked[0]
    port = call.sup.policy.local_port(asked[1])
    same = [known for known in table.listeners.values() if known.asked[1] == asked[1]]
    if same:
        _forget_closed(call.sup.network, table)  # a look at all sockets is only worth it when the port was had before
        same = [known for known in table.listeners.values() if known.asked[1] == asked[1]]
    if same and sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        port = same[0].real[1]  # workers that share one port go on sharing
    code = _try(sock, host, port)
    if code == errno.EADDRNOTAVAIL and asked[0] not in sockets.WILDCARDS:
        host = sockets.loopback(sock)  # an address that only the target has
        code = _try(sock, host, port)
    if code == errno.EADDRINUSE and any(known.asked[0] in (asked[0], *sockets.WILDCARDS) for known in same):
        return code  # by the program itself: what it would see in the target
    if code in (errno.EADDRINUSE, errno.EACCES) and port == asked[1]:
        why = "is in use on this machine" if code == errno.EADDRINUSE else "can't be had here"
        code = _try(sock, host, 0)
        if not code:
            call.sup.say(f"port {asked[1]} {why}: the program listens on {host}:{sock.getsockname()[1]} instead")
    if not code:
        real = sock.getsockname()
        sockets.note(table.listeners, sockets.inode(sock), Listener(asked, (real[0], real[1]), sock.family))
    return code


def _try(sock: socket.socket, host: str, port: int) -> int:
    try:
        sock.bind((host, port))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _listen(table: Sockets, call: Call) -> None:
    sup = call.sup
    backlog = call.args[1] & 0xFFFFFFFF
    with sockets.take(call, call.args[0]) as sock:
        inode = sockets.inode(sock)
        known = table.listeners.get(inode)
        if sockets.KINDS.get(sock.type) != "tcp" or sock.family not in (socket.AF_INET, socket.AF_INET6):
            call.cont()
            return
        try:
            sock.listen(backlog if backlog < 1 << 31 else 0)
        except OSError as error:
            call.fail(error.errno or errno.EINVAL)
            return
        if known is None:
            sockets.note(table.own, ("tcp", sock.getsockname()[1]), inode)  # it may never have been bound
    if known and not known.listening:
        known.listening = True
        port = known.asked[1]
        sup.broker.request("listen", {"port": port, "real": list(known.real)}, lambda *_: None)
        if port not in table.watched:
            table.watched.add(port)
            sup.later(CLOSE_CHECK, lambda: _check_closed(table, sup, port))
    call.ret()


def _check_closed(table: Sockets, sup: Supervisor, port: int) -> None:
    """Unsubscribe `port` when the last of its listeners is closed."""
    _forget_closed(sup.network, table)
    if table.own_listener(port) is None:
        table.watched.discard(port)
        sup.broker.request("unlisten", {"port": port}, lambda *_: None)
    else:
        sup.later(CLOSE_CHECK, lambda: _check_closed(table, sup, port))


def _forget_closed(network: Network, table: Sockets) -> None:
    alive = sockets.bound(network, "tcp", sockets.LISTEN_STATE)
    for inode, known in list(table.listeners.items()):
        if known.listening and inode not in alive:
            del table.listeners[inode]
