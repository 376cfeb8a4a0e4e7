"""The kernel's FUSE protocol as bytes, both ways: include/uapi/linux/fuse.h, version 7.31 and later. Pure.

A request is a header and a body; an answer is a header and parts that go out in one writev. `stat` is the 13-tuple of the agent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

Stat = Sequence[int]  # dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime_ns, mtime_ns, ctime_ns
Buffer = bytes | memoryview

ROOT = 1
MAX_REQUEST = 64 << 10  # without writes, requests are names and numbers; the kernel demands at least 8 KiB
MAX_WRITE = 256 << 10  # bytes in one write
MAX_READ = 1 << 20


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45
    LSEEK = 46


CHANGES = frozenset(
    {Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.LINK, Op.WRITE, Op.CREATE, Op.RENAME2}
)

# INIT flags
ASYNC_READ = 1 << 0
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
WANTED = ASYNC_READ | PARALLEL_DIROPS | MAX_PAGES
POSIX_LOCKS, FLOCK_LOCKS = 1 << 1, 1 << 10  # are asked of us; else they are the kernel's own
BIG_WRITES = 1 << 5
AUTO_INVAL_DATA = 1 << 12  # pages are dropped when the time of the last change is another

# OPEN flags
DIRECT_IO = 1 << 0
KEEP_CACHE = 1 << 1
NOFLUSH = 1 << 5

_NOTIFY_INVAL_INODE, _NOTIFY_STORE = 2, 4  # enum fuse_notify_code

_IN = struct.Struct("=IIQQIII4x")  # len, opcode, unique, nodeid, uid, gid, pid
_OUT = struct.Struct("=IiQ")  # len, error, unique
_INIT_IN = struct.Struct("=IIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")
_ATTR = struct.Struct("=6Q10I")
_ENTRY = struct.Struct("=QQQQII")
_ATTR_OUT = struct.Struct("=QII")
_OPEN_OUT = struct.Struct("=QI4x")
_HANDLE = struct.Struct("=Q")
_READ_IN = struct.Struct("=QQI")
_STORE = struct.Struct("=QQI4x")
_INVAL = struct.Struct("=Qqq")
_DIRENT = struct.Struct("=QQII")
_STATFS = struct.Struct("=5Q3I28x")
_FORGET = struct.Struct("=QQ")
_NS = 1_000_000_000
_U64 = (1 << 64) - 1  # the seconds are signed (before 1970), but declared unsigned


class Request(NamedTuple):
    op: int
    unique: int
    node: int
    body: bytes
    task: int = 0  # who asks; 0: unknown in the mount's namespace


def parse(data: bytes) -> Request:
    _length, op, unique, node, _uid, _gid, task = _IN.unpack_from(data)
    return Request(op, unique, node, data[_IN.size :], task)


def name(body: bytes) -> bytes:
    return body[: body.index(0)]


def reading(body: bytes) -> tuple[int, int]:
    """Offset and size of READ or READDIR."""
    _handle, offset, size = _READ_IN.unpack_from(body)
    return offset, size


def interrupted(body: bytes) -> int:
    return int.from_bytes(body[:8], "little")


def forgotten(request: Request) -> list[int]:
    """The nodes that the kernel let go of."""
    if request.op == Op.FORGET:
        return [request.node]
    count = int.from_bytes(request.body[:4], "little")
    return [_FORGET.unpack_from(request.body, 8 + n * _FORGET.size)[0] for n in range(count)]


def reply(unique: int, *parts: Buffer) -> list[Buffer]:
    return [_OUT.pack(_OUT.size + sum(map(len, parts)), 0, unique), *parts]


def error(unique: int, errno: int) -> list[Buffer]:
    return [_OUT.pack(_OUT.size, -errno, unique)]


def store(node: int, offset: int, data: Buffer) -> list[Buffer]:
    """A notification that puts bytes in the kernel's page cache; only for a file that nobody reads yet (see fusefs.py)."""
    head = _STORE.pack(node, offset, len(data))
    return [_OUT.pack(_OUT.size + len(head) + len(data), _NOTIFY_STORE, 0), head, data]


def invalidate(node: int) -> list[Buffer]:
    """A notification that the attributes of a node, not its pages, are to be asked for again; it waits for nobody."""
    return [_OUT.pack(_OUT.size + _INVAL.size, _NOTIFY_INVAL_INODE, 0), _INVAL.pack(node, -1, 0)]


def drop_pages(node: int) -> list[Buffer]:
    """The same for its pages too. It waits for requests about them, so for who answers those."""
    return [_OUT.pack(_OUT.size + _INVAL.size, _NOTIFY_INVAL_INODE, 0), _INVAL.pack(node, 0, 0)]


def init(body: bytes, *, writable: bool = False) -> bytes:
    major, minor, readahead, flags = _INIT_IN.unpack_from(body)
    if (major, minor) < (7, 31):
        raise OSError(f"the kernel's FUSE is {major}.{minor}; 7.31 (Linux 5.2) is needed")
    pages = MAX_READ >> 12
    wanted = WANTED | BIG_WRITES | AUTO_INVAL_DATA | POSIX_LOCKS | FLOCK_LOCKS if writable else WANTED
    return _INIT_OUT.pack(7, 31, readahead, flags & wanted, 64, 48, MAX_WRITE if writable else 4096, 1, pages, 0, 0, 0)


def attr(stat: Stat) -> bytes:
    _dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime = stat
    return _ATTR.pack(
        ino, size, blocks, *(ns // _NS & _U64 for ns in (atime, mtime, ctime)), atime % _NS, mtime % _NS, ctime % _NS,
        mode, nlink & 0xFFFFFFFF, uid, gid, rdev & 0xFFFFFFFF, blksize & 0xFFFFFFFF, 0,
    )  # fmt: skip


def entry(node: int, stat: Stat, name_seconds: int, attr_seconds: int) -> bytes:
    return _ENTRY.pack(node, 0, name_seconds, attr_seconds, 0, 0) + attr(stat)


def attr_out(stat: Stat, seconds: int) -> bytes:
    return _ATTR_OUT.pack(seconds, 0, 0) + attr(stat)


def open_out(flags: int, handle: int = 0) -> bytes:
    return _OPEN_OUT.pack(handle, flags)


def handle(body: bytes) -> int:
    """Of RELEASE, and of all requests that begin with it."""
    return int(_HANDLE.unpack_from(body)[0])


def statfs(values: Sequence[int]) -> bytes:
    _type, bsize, blocks, bfree, bavail, files, ffree, namelen, frsize, _flags = values
    return _STATFS.pack(blocks, bfree, bavail, files, ffree, bsize, namelen, frsize)


def dirents(entries: Iterable[tuple[bytes, int, int]], after: int, size: int) -> bytes:
    """As many entries (name, inode, d_type) as fit; the first has the offset `after` + 1."""
    out, room = [], size
    for offset, (entry_name, ino, kind) in enumerate(entries, after + 1):
        record = _DIRENT.pack(ino, offset, len(entry_name), kind) + entry_name
        record += bytes(-len(record) % 8)
        room -= len(record)
        if room < 0:
            break
        out.append(record)
    return b"".join(out)
