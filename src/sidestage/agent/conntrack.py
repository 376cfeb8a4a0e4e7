"""Forgets what the kernel's connection tracking remembers of a redirect that has ended, as `conntrack -D` would.

An entry outlives its connection by up to two minutes, and keeps its address translation: a client that comes from the same
port again would be sent to a listener that is no more, and be refused (nf_conntrack_proto_tcp.c).
"""

from __future__ import annotations

import socket
import struct
from typing import Dict

from sidestage.agent import netlink
from sidestage.agent.netlink import Netlink, attr, nest

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # of NFNL_SUBSYS_CTNETLINK
_ORIG, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25  # enum ctattr_type
_PROTO, _NUM, _SRC_PORT, _DST_PORT = 2, 1, 2, 3
_BY_NUM, _BY_SRC_PORT, _BY_DST_PORT = 1 << 3, 1 << 4, 1 << 5  # CTA_FILTER_F_


def forget(port: int, listener: int) -> int:
    """Delete the entries of connections to `port` that were sent to `listener`; returns how many.

    Raises OSError: EPERM, or EOPNOTSUPP from a kernel without CONFIG_NF_CT_NETLINK.
    """
    # Kernels before 5.8 don't know the filter and tell all: what comes is looked at once more.
    flags = struct.pack("=I", _BY_NUM | _BY_DST_PORT), struct.pack("=I", _BY_NUM | _BY_SRC_PORT)
    wanted = b"".join((
        nest(_FILTER, attr(1, flags[0]), attr(2, flags[1])),
        nest(_ORIG, _tcp(_DST_PORT, port)), nest(_REPLY, _tcp(_SRC_PORT, listener)),
    ))  # fmt: skip
    link, count = Netlink(netlink.NETFILTER), 0
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            head = bytes((family, 0, 0, 0))
            for body in link.dump(netlink.message(_GET, netlink.DUMP, head + wanted, 1)):
                entry = dict(netlink.attributes(body[4:]))
                if _port(entry[_ORIG], _DST_PORT) != port or _port(entry[_REPLY], _SRC_PORT) != listener:
                    continue
                which = [nest(_ORIG, entry[_ORIG]), *(attr(kind, entry[kind]) for kind in (_ID, _ZONE) if kind in entry)]
                count += 1
                try:
                    link.commit(netlink.message(_DELETE, netlink.ACK, head + b"".join(which), count), count)
                except FileNotFoundError:
                    count -= 1  # gone by itself
    finally:
        link.close()
    return count


def _tcp(which: int, port: int) -> bytes:
    return nest(_PROTO, attr(_NUM, bytes((socket.IPPROTO_TCP,))), attr(which, struct.pack("!H", port)))


def _port(tuple_: bytes, which: int) -> int:
    """Of a TCP tuple; -1 for others."""
    proto: Dict[int, bytes] = dict(netlink.attributes(dict(netlink.attributes(tuple_)).get(_PROTO, b"")))
    if proto.get(_NUM) != bytes((socket.IPPROTO_TCP,)):
        return -1
    return int(struct.unpack("!H", proto[which])[0])
