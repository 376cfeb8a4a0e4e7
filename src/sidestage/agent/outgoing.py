"""Outgoing connections, the target's half: channels of kind tcp, udp and unix, from the target's network."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any, Callable, Dict, Tuple

from sidestage.agent.files import Files
from sidestage.stream.connecting import Connecting
from sidestage.stream.link import Link
from sidestage.stream.loop import Loop
from sidestage.stream.pump import DatagramPump, SocketPump

CONNECT_TIMEOUT = 30.0  # seconds; Linux itself gives up after 130 (tcp_syn_retries), and nobody waits that long
_UNIX = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}

Args = Dict[str, Any]


class Outgoing:
    def __init__(self, loop: Loop, files: Files) -> None:
        self._loop, self._files = loop, files
        self._kinds: Dict[str, Callable[[Link, int, Args], None]] = {
            "tcp": self._tcp, "udp": self._udp, "unix": self._unix, "measure": self._measure,
        }  # fmt: skip

    def opened(self, link: Link, channel: int, kind: str, args: Args) -> None:
        """The laptop opened a channel; it is accepted or refused with the errno that a program here would get."""
        try:
            self._kinds[kind](link, channel, args)
        except OSError as error:
            link.refuse(channel, error.errno or errno.EINVAL)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            link.refuse(channel, errno.EINVAL, str(error))

    def _tcp(self, link: Link, channel: int, args: Args) -> None:
        sock, address = _socket(args, socket.SOCK_STREAM)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            Connecting(self._loop, link, channel, sock, CONNECT_TIMEOUT, lambda: _connected(self._loop, link, channel, sock))
        elif code:
            sock.close()
            raise OSError(code, os.strerror(code))
        else:
            _connected(self._loop, link, channel, sock)

    def _udp(self, link: Link, channel: int, args: Args) -> None:
        sock, address = _socket(args, socket.SOCK_DGRAM)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        link.accept(channel, {"local": list(sock.getsockname()[:2])})
        DatagramPump(self._loop, link, channel, sock).start()

    def _unix(self, link: Link, channel: int, args: Args) -> None:
        path, kind = os.fsdecode(args["path"]), _UNIX[args["type"]]
        sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        try:
            if path.startswith("\0"):
                sock.connect(path)
            else:
                fd = self._files.find(path)
                try:
                    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                        raise OSError(errno.ECONNREFUSED, "not a socket")
                    sock.connect(f"/proc/self/fd/{fd}")  # the path may be longer than sun_path, and lies below a root
                finally:
                    os.close(fd)
        except OSError:
            sock.close()
            raise
        link.accept(channel, {})
        pump = DatagramPump if kind == socket.SOCK_SEQPACKET else SocketPump
        pump(self._loop, link, channel, sock).start()

    def _measure(self, link: Link, channel: int, args: Args) -> None:
        from sidestage.agent.measure import Measure

        Measure(link, channel, args)


def _socket(args: Args, kind: int) -> Tuple[socket.socket, Tuple[str, int]]:
    host, port = args["host"], args["port"]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK), (host, port)


def _connected(loop: Loop, link: Link, channel: int, sock: socket.socket) -> None:
    link.accept(channel, {"local": list(sock.getsockname()[:2])})
    SocketPump(loop, link, channel, sock).start()
