"""The agent's answers about files, given by a directory of this machine: a link without a wire."""

from __future__ import annotations

import errno as e
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIRST = 128 << 10
BATCH = 128
Done = Callable[[dict[str, Any], bytes, int], None]


class DirectoryLink:
    def __init__(self, loop: Any, root: Path, delay: float = 0.0) -> None:
        self._loop, self._root, self._delay = loop, root, delay
        self.handles: dict[int, tuple[int, list[list[Any]]]] = {}
        self.calls: list[str] = []
        self.gone = False
        self._last = 0

    def call(self, op: str, args: dict[str, Any], done: Done, raw: bytes = b"") -> None:
        self.calls.append(op)

        def answer() -> None:
            try:
                if self.gone:
                    raise OSError(e.EIO, "the link is gone")
                result, data = getattr(self, f"_{op}")(**args)
            except OSError as error:
                done({}, b"", error.errno or e.EIO)
            else:
                done(result, data, 0)

        if self._delay:
            self._loop.later(self._delay, answer)
        else:
            self._loop.soon(answer)

    def _path(self, path: str) -> str:
        return f"{self._root}{path}"

    def _open(self, path: str, follow: bool) -> tuple[dict[str, Any], bytes]:
        path = self._path(path)
        if not follow and os.path.islink(path):
            return {"stat": stat(os.lstat(path)), "handle": 0, "eof": True}, b""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        meta = stat(os.fstat(fd))
        self._last += 1
        if os.path.isdir(path):
            self.handles[self._last] = (fd, [[n.name, n.inode(), 4 if n.is_dir() else 8] for n in os.scandir(path)])
            return {"stat": meta, "handle": self._last, "eof": False}, b""
        first = os.read(fd, FIRST)
        if len(first) < FIRST or not os.pread(fd, 1, FIRST):
            os.close(fd)
            return {"stat": meta, "handle": 0, "eof": True}, first
        self.handles[self._last] = (fd, [])
        return {"stat": meta, "handle": self._last, "eof": False}, first

    def _read(self, handle: int, offset: int, size: int) -> tuple[dict[str, Any], bytes]:
        return {}, os.pread(self.handles[handle][0], size, offset)

    def _readdir(self, handle: int, again: bool = False) -> tuple[dict[str, Any], bytes]:
        fd, entries = self.handles[handle]
        if again:
            entries[:] = [[n.name, n.inode(), 4 if n.is_dir() else 8] for n in os.scandir(fd)]
        batch = entries[:BATCH]
        del entries[:BATCH]
        return {"entries": batch}, b""

    def _close(self, handle: int) -> tuple[dict[str, Any], bytes]:
        os.close(self.handles.pop(handle)[0])
        return {}, b""

    def _stat(self, path: str, follow: bool) -> tuple[dict[str, Any], bytes]:
        return {"stat": stat(os.stat(self._path(path), follow_symlinks=follow))}, b""

    def _readlink(self, path: str) -> tuple[dict[str, Any], bytes]:
        return {}, os.fsencode(os.readlink(self._path(path)))

    def _statfs(self, path: str) -> tuple[dict[str, Any], bytes]:
        v = os.statvfs(self._path(path))
        return {"statfs": [0xEF53, v.f_bsize, v.f_blocks, v.f_bfree, v.f_bavail, v.f_files, v.f_ffree, 255, v.f_frsize, 0]}, b""


def stat(r: os.stat_result) -> list[int]:
    return [
        r.st_dev, r.st_ino, r.st_mode, r.st_nlink, r.st_uid, r.st_gid, r.st_rdev, r.st_size, r.st_blksize, r.st_blocks,
        r.st_atime_ns, r.st_mtime_ns, r.st_ctime_ns,
    ]  # fmt: skip
