"""struct msghdr of another process: where its address and its buffers are (recvmsg(2), include/linux/socket.h)."""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from sidestage.trap.supervisor import Call

_MSGHDR = struct.Struct("=QI4xQQQQi4x")  # name, namelen, iov, iovlen, control, controllen, flags; of 64-bit machines
SIZE = _MSGHDR.size  # in a struct mmsghdr the length that was sent or received follows
_MSG_TRUNC = 0x20
_MAX_IOV = 1024  # UIO_MAXIOV
MAX_DATAGRAM = 65507  # of IPv4, as a relay is: 65,535 less two headers


def fits_datagram(size: int) -> None:
    if size > MAX_DATAGRAM:
        raise OSError(errno.EMSGSIZE, "datagram too long")


class Message(NamedTuple):
    at: int
    name: int
    name_size: int
    iov: int
    iov_count: int

    @classmethod
    def read(cls, call: Call, at: int) -> Message:
        """Raises OSError(EFAULT)."""
        name, name_size, iov, iov_count, *_ = _MSGHDR.unpack(call.read(at, SIZE))
        return cls(at, name, name_size, iov, min(iov_count, _MAX_IOV))

    def _buffers(self, call: Call) -> list[tuple[int, int]]:
        return list(struct.iter_unpack("=QQ", call.read(self.iov, 16 * self.iov_count))) if self.iov_count else []

    def gather(self, call: Call) -> bytes:
        """The bytes to be sent; EMSGSIZE before any is read, as the kernel says it (udp_sendmsg in net/ipv4/udp.c)."""
        buffers = self._buffers(call)
        fits_datagram(sum(size for _, size in buffers))
        return b"".join(call.read(base, size) for base, size in buffers if size)

    def scatter(self, call: Call, data: bytes, source: bytes) -> int:
        """Write what was received, the address it came from, no control messages, and the flags; returns the room there was."""
        at = 0
        buffers = self._buffers(call)
        for base, size in buffers:
            part = data[at : at + size]
            if part:
                call.write(base, part)
            at += size
        room = sum(size for _, size in buffers)
        if self.name:
            call.write(self.name, source[: self.name_size])
            call.write(self.at + 8, struct.pack("=I", len(source)))
        call.write(self.at + 40, struct.pack("=Qi", 0, _MSG_TRUNC if len(data) > room else 0))
        return room
