"""Where the sockets are made that meet the program's over a loopback: in our own network namespace, or in that of a container.

A socket belongs for ever to the namespace in which its maker was (network_namespaces(7)). So a container with a network of its own
gets a maker: a child that has entered it, and passes sockets out to trap and to session.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct

from sidestage.trap import kernel

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_ASK = struct.Struct("=ii")
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    def __init__(self) -> None:
        self._maker: socket.socket | None = None
        self.pid = 0  # a process in it whose /proc/PID/net tells of it; 0: we ourselves
        here = os.stat("/proc/self/ns/net")
        self.ident = (here.st_dev, here.st_ino)

    @property
    def own(self) -> bool:
        """Is it not ours?"""
        return self._maker is not None

    @property
    def tables(self) -> str:
        return f"/proc/{self.pid or 'self'}/net"

    def enter(self, maker: socket.socket, ident: tuple[int, int], pid: int = 0) -> None:
        self._maker, self.ident, self.pid = maker, ident, pid

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        if self._maker is None:
            return socket.socket(family, kind)
        try:
            self._maker.send(_ASK.pack(family, kind))
            data, fds, _, _ = socket.recv_fds(self._maker, _ASK.size, 1)
        except OSError as error:
            raise OSError(error.errno, "the container's network is gone") from error
        if not fds:
            code = int.from_bytes(data, "little") or 5
            raise OSError(code, os.strerror(code))
        os.set_inheritable(fds[0], False)
        made = socket.socket(fileno=fds[0])
        made.setblocking(not kind & socket.SOCK_NONBLOCK)
        return made


def maker(pid: int) -> tuple[socket.socket, socket.socket, tuple[int, int]] | None:
    """Two ends that serve Network.socket, and whose network it is; None if `pid` is in ours. Raises OSError."""
    there, here = os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net")
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        return None
    with contextlib.ExitStack() as opened:
        net = opened.enter_context(open(f"/proc/{pid}/ns/net"))
        user = opened.enter_context(open(f"/proc/{pid}/ns/user"))
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        said, say = os.pipe()
        child = os.fork()
        if not child:
            try:
                _serve([theirs.fileno() for _, theirs in pairs], net.fileno(), user.fileno(), say)
            finally:
                os._exit(0)
        for _, theirs in pairs:
            theirs.close()
        os.close(say)
        code = os.read(said, 4)
        os.close(said)
        if len(code) != 4 or any(code):
            for ours, _ in pairs:
                ours.close()
            number = int.from_bytes(code, "little") or 5
            raise OSError(number, f"the container's network can't be entered: {os.strerror(number).lower()}")
    return pairs[0][0], pairs[1][0], (there.st_dev, there.st_ino)


def _serve(ends: list[int], net: int, user: int, say: int) -> None:
    """Until both have closed their ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 0)
    failed = _libc.setns(net, _CLONE_NEWNET) and (_libc.setns(user, _CLONE_NEWUSER) or _libc.setns(net, _CLONE_NEWNET))
    os.write(say, (ctypes.get_errno() if failed else 0).to_bytes(4, "little"))
    if failed:
        return
    kernel.close_all_but(ends)
    poll = select.poll()
    served = {fd: socket.socket(fileno=fd) for fd in ends}
    for fd in served:
        poll.register(fd, select.POLLIN)
    while served:
        for fd, _ in poll.poll():
            asked = served[fd].recv(_ASK.size)
            if not asked:
                poll.unregister(fd)
                served.pop(fd).close()
                continue
            with contextlib.suppress(BrokenPipeError):
                try:
                    with socket.socket(*_ASK.unpack(asked)) as made:
                        socket.send_fds(served[fd], [b"made"], [made.fileno()])
                except OSError as error:
                    served[fd].send((error.errno or 5).to_bytes(4, "little"))
