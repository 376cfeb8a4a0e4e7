"""struct stat, statx and statfs as the kernel lays them out; pure. `stat` is the agent's 13 numbers (ARCHITECTURE.md)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

_NS = 1_000_000_000
_STAT_X86_64 = struct.Struct("=QQQIII4xQqqqqqqqqq24x")  # arch/x86/include/uapi/asm/stat.h
_STAT_GENERIC = struct.Struct("=QQIIIIQ8xqi4xqqQqQqQ8x")  # include/uapi/asm-generic/stat.h: aarch64
_STATX = struct.Struct("=IIQIIIH2xQQQQ" + "qI4x" * 4 + "IIII" + "112x")  # include/uapi/linux/stat.h
_STATFS = struct.Struct("=qqQQQQQQqqq32x")  # asm-generic/statfs.h, 64 bit, both
_STATX_BASIC = 0x7FF


def stat(values: Sequence[int], machine: str) -> bytes:
    dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, *times = values
    seconds = [part for ns in times for part in divmod(ns, _NS)]
    if machine == "x86_64":
        return _STAT_X86_64.pack(dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, *seconds)
    return _STAT_GENERIC.pack(dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, *seconds)


def statx(values: Sequence[int]) -> bytes:
    dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime = values
    return _STATX.pack(
        _STATX_BASIC, blksize, 0, nlink, uid, gid, mode, ino, size, blocks, 0,
        *divmod(atime, _NS), 0, 0, *divmod(ctime, _NS), *divmod(mtime, _NS),
        os.major(rdev), os.minor(rdev), os.major(dev), os.minor(dev),
    )  # fmt: skip


def statfs(values: Sequence[int]) -> bytes:
    kind, bsize, blocks, bfree, bavail, files, ffree, namelen, frsize, flags = values
    return _STATFS.pack(kind, bsize, blocks, bfree, bavail, files, ffree, 0, namelen, frsize, flags)


def of(result: os.stat_result) -> tuple[int, ...]:
    """A local file's, as the agent would tell it."""
    r = result
    return (
        r.st_dev, r.st_ino, r.st_mode, r.st_nlink, r.st_uid, r.st_gid, r.st_rdev, r.st_size, r.st_blksize, r.st_blocks,
        r.st_atime_ns, r.st_mtime_ns, r.st_ctime_ns,
    )  # fmt: skip
