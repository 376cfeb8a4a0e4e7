"""Ends established connections to a port, as `ss -K` does: both sides see a reset (sock_diag(7), Linux 4.5)."""

from __future__ import annotations

import socket
import struct
from typing import Collection

from sidestage.agent import netlink
from sidestage.agent.netlink import Netlink

_BY_FAMILY, _DESTROY = 20, 21
_ESTABLISHED, _CLOSE_WAIT = 1, 8
_STATES = 1 << _ESTABLISHED | 1 << _CLOSE_WAIT
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2, the sock id last
_ID = slice(4, 52)  # of struct inet_diag_msg


def flush(port: int, keep: Collection[int] = ()) -> int:
    """Reset connections accepted on `port`, but not those from our ports `keep`; returns how many.

    Raises OSError: EPERM without CAP_NET_ADMIN, EOPNOTSUPP from a kernel without CONFIG_INET_DIAG_DESTROY.
    """
    link, count = Netlink(netlink.SOCK_DIAG), 0
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = struct.pack("!H", port) + bytes(46)
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES, wanted)
            for body in link.dump(netlink.message(_BY_FAMILY, netlink.DUMP, request, 1)):
                identity = body[_ID]
                local, remote = struct.unpack_from("!HH", identity)
                if body[0] != family or local != port or remote in keep:
                    continue
                count += 1
                request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES, identity)
                try:
                    link.commit(netlink.message(_DESTROY, netlink.ACK, request, count), count)
                except FileNotFoundError:
                    count -= 1  # ended by itself meanwhile
    finally:
        link.close()
    return count
