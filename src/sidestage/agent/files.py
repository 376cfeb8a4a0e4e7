"""The target's files, for reading; changes.py changes them. Every path is walked by the kernel below the target's root, and no
link leads out of it: openat2(2) with RESOLVE_IN_ROOT treats `/` and `..` as chroot would; magic links of /proc are refused. Only
regular files and directories are opened: a FIFO or a device would wait for somebody, or do something.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from itertools import islice
from typing import Any, Dict, List, Tuple

FIRST = 128 << 10  # bytes that come along with an open
MAX_READ = 1 << 20  # bytes of one read
ENTRIES = 4096  # of a directory in one answer
LISTING = 1 << 20  # bytes of JSON that they may take there: an answer is one frame
RETRIES = 128  # of a walk that the rest of the machine disturbed
MAX_HANDLES = 65536  # open at once; more is a leak of the laptop's side
_OPENAT2 = 437  # on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_HOW = struct.Struct("=QQQ")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Files:
    def __init__(self, root: int, agent: int = 0) -> None:
        """`agent` counts the agents of a session: a handle of another one is not taken for one of ours."""
        self._root = root
        self._handles: Dict[int, int] = {}
        self._listings: Dict[int, Any] = {}  # what os.scandir returns
        self._next = (agent << 32) + 1

    def walk(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor, ours to close."""
        how = _HOW.pack(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        if self._root < 0:
            raise OSError(errno.EACCES, "the target's files can't be had by this agent")
        error = errno.EAGAIN
        for _ in range(RETRIES):  # EAGAIN: something was renamed or mounted while the kernel went up a `..`; openat2(2)
            fd: int = _libc.syscall(_OPENAT2, self._root, os.fsencode(path), how, len(how))
            if fd >= 0:
                return fd
            error = ctypes.get_errno()
            if error != errno.EAGAIN:
                break
        raise OSError(error, os.strerror(error))

    def find(self, path: str) -> int:
        """An O_PATH descriptor of what `path` names, ours to close."""
        return self.walk(path, os.O_PATH)

    def open(self, path: str, follow: bool = True) -> Tuple[Dict[str, object], bytes]:
        """`{stat, handle, eof}` and the first bytes; handle 0 when they are all."""
        extra = 0 if follow else os.O_NOFOLLOW
        # The type must be known before the open: to open a FIFO or a device is to act on it.
        probe = self.walk(path, os.O_PATH | extra)
        try:
            info = os.fstat(probe)
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                raise OSError(errno.ELOOP if stat.S_ISLNK(info.st_mode) else errno.EACCES, "neither file nor directory")
            fd = os.open(f"/proc/self/fd/{probe}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        finally:
            os.close(probe)
        keep = False
        try:
            info = os.fstat(fd)
            data, eof = b"", False
            if stat.S_ISREG(info.st_mode):
                data = os.pread(fd, FIRST, 0)
                # Files of /proc say size 0 and are longer: only a read of nothing tells their end.
                eof = len(data) < FIRST and (len(data) >= info.st_size > 0 or not os.pread(fd, 1, len(data)))
            keep = not eof
            return {"stat": stat_of(info), "handle": self.keep(fd) if keep else 0, "eof": eof}, data
        finally:
            if not keep:
                os.close(fd)

    def whole(self, path: str) -> bytes:
        """The contents of a small file."""
        probe = self.find(path)
        try:
            if stat.S_ISDIR(os.fstat(probe).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        finally:
            os.close(probe)
        info, data = self.open(path)
        if info["handle"]:
            self.close(int(str(info["handle"])))
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return data

    def keep(self, fd: int) -> int:
        if len(self._handles) >= MAX_HANDLES:
            raise OSError(errno.ENFILE, "too many open files")
        handle, self._next = self._next, self._next + 1
        self._handles[handle] = fd
        return handle

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(self.fd(handle), min(size, MAX_READ), offset)

    def readdir(self, handle: int, again: bool = False) -> List[Tuple[str, int, int]]:
        """The next (name, inode, d_type as of readdir(3)), without `.` and `..`; none at the end. `again`: from the beginning."""
        if again and handle in self._listings:
            self._listings.pop(handle).close()  # rewinds the descriptor
        if handle not in self._listings:
            self._listings[handle] = os.scandir(self.fd(handle))
        found: List[Tuple[str, int, int]] = []
        left = LISTING
        for entry in islice(self._listings[handle], ENTRIES):
            found.append((entry.name, entry.inode(), _type(entry)))
            left -= 12 * len(entry.name) + 32  # a character takes up to 12 bytes of JSON, the numbers less than 32
            if left < 4096:  # not enough for any further name
                break
        return found

    def close(self, handle: int) -> None:
        fd = self.fd(handle)
        listing = self._listings.pop(handle, None)
        if listing is not None:
            listing.close()
        os.close(fd)
        del self._handles[handle]

    def fd(self, handle: int) -> int:
        try:
            return self._handles[handle]
        except KeyError:
            raise OSError(errno.EBADF, "no such handle") from None

    def stat(self, path: str, follow: bool) -> List[int]:
        fd = self.walk(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        try:
            return stat_of(os.fstat(fd))
        finally:
            os.close(fd)

    def realpath(self, path: str) -> Dict[str, object]:
        """`{stat, real}`: the same place by a path without links."""
        fd = self.walk(path, os.O_PATH)
        try:
            root, real = (os.readlink(f"/proc/self/fd/{each}").rstrip("/") for each in (self._root, fd))
            below = real == root or real.startswith(f"{root}/")
            return {"stat": stat_of(os.fstat(fd)), "real": (real[len(root) :] if below else real) or "/"}
        finally:
            os.close(fd)

    def readlink(self, path: str) -> bytes:
        fd = self.walk(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink(b"", dir_fd=fd)
        except FileNotFoundError:
            raise OSError(errno.EINVAL, "not a symbolic link") from None  # as readlink(2) says of a path
        finally:
            os.close(fd)

    def access(self, path: str, mode: int) -> None:
        fd = self.walk(path, os.O_PATH)
        try:
            if not os.access(f"/proc/self/fd/{fd}", mode, effective_ids=True):
                raise OSError(errno.EACCES, "permission denied")
            if mode & os.W_OK and os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, "read-only file system")
        finally:
            os.close(fd)

    def statfs(self, path: str) -> List[int]:
        fd = self.walk(path, os.O_PATH)
        try:
            buffer = ctypes.create_string_buffer(256)
            if _libc.fstatfs(fd, buffer):
                raise OSError(ctypes.get_errno(), "fstatfs")
        finally:
            os.close(fd)
        # struct statfs of 64-bit machines: f_fsid (two ints) stands between files and namelen
        kind, bsize, blocks, bfree, bavail, files, ffree, _fsid, namelen, frsize, flags = struct.unpack_from(
            "=11q", buffer.raw
        )
        return [kind, bsize, blocks, bfree, bavail, files, ffree, namelen, frsize, flags]


def _type(entry: "os.DirEntry[str]") -> int:
    if entry.is_symlink():
        return 10
    if entry.is_dir(follow_symlinks=False):
        return 4
    if entry.is_file(follow_symlinks=False):
        return 8
    try:
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12  # IFTODT of <dirent.h>
    except OSError:
        return 0  # DT_UNKNOWN: it has just gone


def stat_of(info: os.stat_result) -> List[int]:
    return [
        info.st_dev, info.st_ino, info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_rdev, info.st_size,
        info.st_blksize, info.st_blocks, info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns,
    ]  # fmt: skip
