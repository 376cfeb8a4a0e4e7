"""Where redirected connections arrive, and where they wanted to go."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, List, Optional, Tuple

BACKLOG = 4096  # the kernel clamps it to somaxconn
FIRST_PORT, PORTS, STRIDE = 61001, 4000, 7  # of listeners: beyond what Linux gives to clients (ip_local_port_range)
REMEMBERED = 4  # of the ports of a redirect: those that others look for
TRIES = 50  # as many may drain at once
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST


def candidates(port: int) -> List[int]:
    return [FIRST_PORT + (port * STRIDE + n) % PORTS for n in range(TRIES)]


def taken(port: int) -> bool:
    """Does anybody listen there?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


def listen(port: int) -> List[socket.socket]:
    """For IPv4, and at the same port for IPv6 where there is one.

    The same each time if it can be had: what the kernel remembers of a redirect that was killed then leads here again.
    """
    flags = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    for wanted in candidates(port):
        four = socket.socket(socket.AF_INET, flags)
        four.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            four.bind(("0.0.0.0", wanted))
            four.listen(BACKLOG)
            six = _six(flags, four.getsockname()[1])
        except OSError as error:
            four.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return [four, six] if six is not None else [four]
    raise OSError(errno.EADDRINUSE, "no port is free for both IPv4 and IPv6")


def _six(flags: int, port: int) -> Optional[socket.socket]:
    try:
        six = socket.socket(socket.AF_INET6, flags)
    except OSError:
        return None  # a kernel without IPv6
    try:
        six.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::", port))
        six.listen(BACKLOG)
    except OSError as error:
        six.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None  # it is switched off
        raise
    return six


def destination(sock: socket.socket, port: int) -> Tuple[Any, ...]:
    """Where the client wanted to go, before the redirect."""
    own = sock.getsockname()
    six = sock.family == socket.AF_INET6
    try:
        raw = sock.getsockopt(socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP, _SO_ORIGINAL_DST, 28 if six else 16)
    except OSError:
        return (own[0], port, *own[2:])  # the kernel has forgotten; only the port is ever rewritten
    if six:
        return (socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from("!H", raw, 2)[0], 0, own[3])
    return (socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack_from("!H", raw, 2)[0])
