"""Opens files of a FUSE mount that only its own user namespace may use: a child in there does it, and passes the descriptors out.

A mount for all users of an ordinary user's containers lets nobody else in, its maker included (fuse_allow_current_process in
fs/fuse/dir.c).
"""

from __future__ import annotations

import os
import socket
import struct

_ASK = struct.Struct("=i")
MAX_ASKED = 256  # bytes; a node's name is a number


class Opener:
    def __init__(self, end: int) -> None:
        self._end = socket.socket(fileno=end)

    def open(self, node: str, flags: int) -> int:
        self._end.send(_ASK.pack(flags) + node.encode())
        data, fds, _, _ = socket.recv_fds(self._end, 16, 1)
        if not fds:
            code = int.from_bytes(data, "little") or 5
            raise OSError(code, os.strerror(code))
        os.set_inheritable(fds[0], False)
        return fds[0]


def serve(end: socket.socket, root: int) -> None:
    """Until the other end is closed."""
    while asked := end.recv(MAX_ASKED):
        (flags,) = _ASK.unpack_from(asked)
        try:
            fd = os.open(asked[_ASK.size :].decode(), flags, dir_fd=root)
        except OSError as error:
            end.send((error.errno or 5).to_bytes(4, "little"))
            continue
        socket.send_fds(end, [b"open"], [fd])
        os.close(fd)
