"""Relays: a loopback datagram socket that stands for one address of the target, made here and served by session."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from sidestage.trap import sockets
from sidestage.trap.supervisor import Supervisor

DNS_PORT = 53
LOOPBACK, LOOPBACK6 = "127.0.0.1", "::1"

Made = Callable[[int, int, "list[Any] | None"], None]  # the relay's port, errno, the address that the target's end has


def make(sup: Supervisor, remote: sockets.Address, speaker: socket.socket, made: Made) -> None:
    """A relay that `speaker`, the program's socket, can speak to: one that takes IPv6 only can't name 127.0.0.1.

    `made` is called at once for a name server: a query need not wait a round trip for the word that its socket is there.
    """
    only6 = sockets.loopback(speaker) == LOOPBACK6
    relay = sup.network.socket(socket.AF_INET6 if only6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with relay:
        relay.bind((LOOPBACK6 if only6 else LOOPBACK, 0))
        port = relay.getsockname()[1]
        args = {"host": remote[0], "port": remote[1]}
        if remote[1] == DNS_PORT:
            sup.broker.tell("udp", args, [relay.fileno()])
            made(port, 0, None)
        else:
            sup.broker.request("udp", args, lambda told, code, _fds: made(port, code, told.get("local")), [relay.fileno()])
