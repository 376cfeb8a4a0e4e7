"""The bodies of FUSE requests about locks: include/uapi/linux/fuse.h. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

_LK_IN = struct.Struct("=QQQQIIII")  # handle, owner, start, end, type, pid, flags, padding
_LK_OUT = struct.Struct("=QQII")
_FLUSH_IN = struct.Struct("=QIIQ")  # handle, unused, padding, owner
_FLOCK = 1  # FUSE_LK_FLOCK
_OFD_SETLKW = 38  # linux/fcntl.h; a wait by the other commands is a process's


class Lock(NamedTuple):
    handle: int
    owner: int  # a process's table of descriptors, or an open file description
    start: int
    end: int  # the last byte
    kind: int  # F_RDLCK, F_WRLCK or F_UNLCK
    pid: int
    flock: bool


def lock(body: bytes) -> Lock:
    handle, owner, start, end, kind, pid, flags, _padding = _LK_IN.unpack_from(body)
    return Lock(handle, owner, start, end, kind, pid, bool(flags & _FLOCK))


def found(start: int, end: int, kind: int, pid: int) -> bytes:
    """The answer to GETLK."""
    return _LK_OUT.pack(start, end, kind, pid)


def flushed(body: bytes) -> tuple[int, int]:
    """The handle, and whose locks end."""
    handle, _unused, _padding, owner = _FLUSH_IN.unpack_from(body)
    return handle, owner


def of_process(syscall: str) -> bool:
    """Does who waits hold its locks as a process? By /proc/TID/syscall, as FUSE doesn't say; by default it does (fcntl(2))."""
    words = syscall.split()
    return len(words) < 3 or not words[2].startswith("0x") or int(words[2], 16) != _OFD_SETLKW
