"""The bodies of FUSE requests that change a file or ask for more than its bytes: include/uapi/linux/fuse.h. Pure."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

_OPEN_IN = struct.Struct("=II")
_WRITE_IN = struct.Struct("=QQII8x8x")
_WRITE_OUT = struct.Struct("=I4x")
_SETATTR_IN = struct.Struct("=I4xQQ8xQQ8xIIIIIII4x")
_FALLOCATE_IN = struct.Struct("=QQQI4x")
_LSEEK_IN = struct.Struct("=QQI4x")
_LSEEK_OUT = struct.Struct("=Q")
_FSYNC_IN = struct.Struct("=QI4x")
_XATTR_IN = struct.Struct("=II")  # of SETXATTR, without FUSE_SETXATTR_EXT, and of GETXATTR and LISTXATTR
_XATTR_OUT = struct.Struct("=I4x")

_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _FH, _ATIME_NOW, _MTIME_NOW = (1 << n for n in range(9))  # FATTR_*
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_DATA_ONLY = 1  # FUSE_FSYNC_FDATASYNC


class Write(NamedTuple):
    handle: int
    offset: int
    data: bytes


def open_flags(body: bytes) -> int:
    return int(_OPEN_IN.unpack_from(body)[0])


def write(body: bytes) -> Write:
    handle, offset, size, _flags = _WRITE_IN.unpack_from(body)
    return Write(handle, offset, body[_WRITE_IN.size : _WRITE_IN.size + size])


def written(size: int) -> bytes:
    return _WRITE_OUT.pack(size)


def attributes(body: bytes) -> tuple[int, dict[str, Any]]:
    """The handle, 0 for none, and the agent's words for what is to be set."""
    valid, handle, size, atime, mtime, atime_ns, mtime_ns, _ctime_ns, mode, _unused, uid, gid = _SETATTR_IN.unpack_from(body)
    what: dict[str, Any] = {}
    if valid & _SIZE:
        what["size"] = size
    if valid & (_UID | _GID):
        what["owner"] = [uid if valid & _UID else -1, gid if valid & _GID else -1]
    if valid & _MODE:
        what["mode"] = mode & 0o7777
    if valid & (_ATIME | _MTIME):
        what["times"] = [
            *_time(valid & _ATIME, valid & _ATIME_NOW, atime, atime_ns),
            *_time(valid & _MTIME, valid & _MTIME_NOW, mtime, mtime_ns),
        ]
    return handle if valid & _FH else 0, what


def _time(given: int, now: int, seconds: int, ns: int) -> tuple[int, int]:
    if not given:
        return 0, _UTIME_OMIT
    return (0, _UTIME_NOW) if now else (seconds - (seconds >> 63 << 64), ns)


def allocation(body: bytes) -> dict[str, int]:
    handle, offset, length, mode = _FALLOCATE_IN.unpack_from(body)
    return {"handle": handle, "offset": offset, "length": length, "mode": mode}


def seek(body: bytes) -> dict[str, int]:
    handle, offset, whence = _LSEEK_IN.unpack_from(body)
    return {"handle": handle, "offset": offset, "whence": whence}


def sought(offset: int) -> bytes:
    return _LSEEK_OUT.pack(offset)


def sync(body: bytes) -> tuple[int, bool]:
    """The handle, and whether the data alone will do."""
    handle, flags = _FSYNC_IN.unpack_from(body)
    return handle, bool(flags & _DATA_ONLY)


def new_xattr(body: bytes) -> tuple[bytes, bytes, int]:
    """Name, value and flags."""
    size, flags = _XATTR_IN.unpack_from(body)
    rest = body[_XATTR_IN.size :]
    name, _, value = rest.partition(b"\0")
    return name, value[:size], flags


def wanted_xattr(body: bytes) -> tuple[int, bytes]:
    """The room that the program has, 0 when it asks for the size; and the name, empty for a list."""
    size, _ = _XATTR_IN.unpack_from(body)
    return size, body[_XATTR_IN.size :].partition(b"\0")[0]


def xattr_size(size: int) -> bytes:
    return _XATTR_OUT.pack(size)
