"""What is known of the program's sockets, by inode: dup, fork, exec and SCM_RIGHTS keep the inode, so nothing to track."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from sidestage.trap.network import Network
from sidestage.trap.supervisor import Call, Supervisor

if TYPE_CHECKING:
    from sidestage.trap.pending import Pending

MAX_REMEMBERED = 65536  # sockets in a table; the oldest is forgotten
SIGNAL_CHECK = 0.05  # seconds between looks for a signal while a call is held
ERESTARTSYS = 512  # include/linux/errno.h: the kernel makes EINTR or a restart of it, as the handler's SA_RESTART says

K = TypeVar("K")
V = TypeVar("V")
Address = tuple[str, int]
WILDCARDS = ("0.0.0.0", "::")
LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp
KINDS = {int(socket.SOCK_STREAM): "tcp", int(socket.SOCK_DGRAM): "udp"}


@dataclass(slots=True)
class Listener:
    """A socket that is bound for the target's traffic."""

    asked: Address
    real: Address
    family: int
    listening: bool = False


@dataclass(slots=True)
class Sockets:
    peers: dict[int, Address] = field(default_factory=dict)  # who the program is connected to, by socket inode
    names: dict[int, Address] = field(default_factory=dict)  # the socket's own address as it is beside the target
    claimed: dict[int, Address] = field(default_factory=dict)  # bound to an address that only the target has
    errors: dict[int, int] = field(default_factory=dict)  # SO_ERROR to be told once; then its negative is kept
    listeners: dict[int, Listener] = field(default_factory=dict)
    watched: set[int] = field(default_factory=set)  # ports whose listeners are looked after
    own: dict[tuple[str, int], int] = field(default_factory=dict)  # (kind, port) bound here and for nobody else -> inode
    arriving: dict[int, tuple[Address, Address]] = field(default_factory=dict)  # port of session's end -> client, target
    pending: dict[int, Pending] = field(default_factory=dict)  # connect()s under way
    relays: dict[int, dict[Address, Address]] = field(default_factory=dict)  # UDP: remote -> relay
    holders: dict[int, tuple[int, int]] = field(default_factory=dict)  # UDP: who made the relay, a thread and its descriptor

    def remember(self, inode: int, peer: Address, name: Address | None = None) -> None:
        note(self.peers, inode, peer)
        name = self.claimed.get(inode) or name
        if name:
            note(self.names, inode, name)

    def forget(self, inode: int) -> None:
        """It is not connected any more."""
        for table in (self.peers, self.names, self.relays, self.holders):
            table.pop(inode, None)

    def own_listener(self, port: int) -> Listener | None:
        for listener in self.listeners.values():
            if listener.asked[1] == port and listener.listening:
                return listener
        return None

    def is_own(self, network: Network, kind: str, port: int) -> bool:
        """Did the program bind this port of the loopback for itself? The end of a socket isn't told: so we look."""
        inode = self.own.get((kind, port))
        if inode is None or inode in bound(network, kind, LISTEN_STATE if kind == "tcp" else ""):
            return inode is not None
        del self.own[kind, port]
        return False


def note(table: dict[K, V], key: K, value: V) -> None:
    table[key] = value
    if len(table) > MAX_REMEMBERED:
        del table[next(iter(table))]


def bound(network: Network, kind: str, state: str = "") -> set[int]:
    """Inodes of the sockets of a network in /proc/net/tcp or udp, those in one state only if it is given."""
    found = set()
    for name in (kind, kind + "6"):
        try:
            with open(f"{network.tables}/{name}", encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if not state or fields[3] == state:
                        found.add(int(fields[9]))
        except FileNotFoundError:
            continue  # a kernel without IPv6, or a container that has ended
    return found


_all: WeakKeyDictionary[Supervisor, Sockets] = WeakKeyDictionary()


def of(sup: Supervisor) -> Sockets:
    """The one table of a supervisor, shared by the socket families."""
    if sup not in _all:
        _all[sup] = Sockets()
    return _all[sup]


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def parse(raw: bytes) -> Address | None:
    """(host, port) of a struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)); None for other families and cut ones."""
    if len(raw) >= 16 and raw[:2] == b"\2\0":
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0]
    if len(raw) >= 24 and raw[:2] == b"\n\0":
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0]
    return None


def pack(family: int, address: Address) -> bytes:
    """A sockaddr for a socket of `family`: IPv4 is v4-mapped on an IPv6 one; IPv6 can't be said on an IPv4 one."""
    host, port = address
    if family == socket.AF_INET6:
        if ":" not in host:
            host = "::ffff:" + host
        return struct.pack("=H", family) + struct.pack("!HI", port, 0) + socket.inet_pton(family, host) + bytes(4)
    if ":" in host:
        mapped = host.removeprefix("::ffff:")
        host = mapped if ":" not in mapped else "127.0.0.1"
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def write_address(call: Call, where: int, length_at: int, raw: bytes) -> None:
    """As move_addr_to_user() in net/socket.c: cut to the room given, and the full length is told."""
    (room,) = struct.unpack("=i", call.read(length_at, 4))
    if room < 0:
        raise OSError(errno.EINVAL, "negative length")
    if room and raw:
        call.write(where, raw[:room])
    call.write(length_at, struct.pack("=i", len(raw)))


def plain(host: str) -> str:
    """A v4-mapped address as IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host


def packed(host: str) -> bytes:
    """An address in its one binary form."""
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def is_loopback(host: str) -> bool:
    return plain(host).startswith("127.") or host == "::1"


def is_icmp(sup: Supervisor, sock: socket.socket, address: Address) -> bool:
    """A ping socket or a raw one (icmp(7), raw(7)): no agent can send for it, and that is said, once."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    if sock.proto not in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6) and sock.type != socket.SOCK_RAW:
        return False
    if not is_loopback(address[0]):
        sup.say("ICMP and raw packets leave from this machine, not from the target: try its ports instead of pinging it")
    return True


def fits(sock: socket.socket, raw: bytes) -> bool:
    """May an address of this family be said to the socket? Only to connect a datagram socket, IPv6 takes IPv4 as well."""
    (family,) = struct.unpack_from("=H", raw)
    return family == sock.family or (sock.family == socket.AF_INET6 and sock.type == socket.SOCK_DGRAM)


def loopback(sock: socket.socket) -> str:
    """The loopback address as a socket of this family says it."""
    if sock.family != socket.AF_INET6:
        return "127.0.0.1"
    return "::1" if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else "::ffff:127.0.0.1"


def hold(call: Call, sock: socket.socket, attempt: Callable[[], bool]) -> None:
    """Hold a blocking call until `attempt` answers it, a signal interrupts it, or its SO_RCVTIMEO ends; closes `sock`."""
    sup = call.sup
    seconds, micros = struct.unpack("=qq", sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    left = seconds + micros / 1e6 or None

    def finish() -> None:
        sup.unwatch(sock.fileno())
        sock.close()

    def ready() -> None:
        if not call.valid():  # interrupted: what has come is for the next call
            finish()
            return
        try:
            done = attempt()
        except OSError as error:
            call.fail(error.errno or errno.EIO)
            done = True
        if done:
            finish()

    def look() -> None:
        nonlocal left
        if sock.fileno() < 0:
            return
        if not call.valid():
            finish()
            return
        signalled = interrupted(call.tid)
        if left is not None:
            left -= SIGNAL_CHECK
        if signalled or (left is not None and left <= 0):
            call.fail(signalled or errno.EAGAIN)
            finish()
        else:
            sup.later(SIGNAL_CHECK, look)

    sup.watch(sock.fileno(), ready)
    sup.later(SIGNAL_CHECK, look)


def interrupted(tid: int) -> int:
    """The errno for a held call when a caught, unblocked signal waits for the thread, else 0 (proc_pid_status(5))."""
    fields: dict[bytes, int] = {}
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            for line in status:
                name, _, value = line.partition(b":")
                if name in (b"SigPnd", b"ShdPnd", b"SigCgt", b"SigBlk"):
                    fields[name] = int(value, 16)
                elif name == b"Threads":
                    fields[name] = int(value)
    except OSError:
        return 0
    handled = fields[b"SigCgt"] & ~fields[b"SigBlk"]
    if fields[b"SigPnd"] & handled or (fields[b"ShdPnd"] & handled and fields[b"Threads"] == 1):
        return ERESTARTSYS
    return errno.EINTR if fields[b"ShdPnd"] & handled else 0


def take(call: Call, descriptor: int) -> socket.socket:
    """The caller's socket, as an object of ours; ENOTSOCK as the kernel would say."""
    fd = call.fd(descriptor)
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def args_of(address: Address) -> dict[str, Any]:
    return {"family": 6 if ":" in address[0] else 4, "host": address[0], "port": address[1]}
