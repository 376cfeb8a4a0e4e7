"""Where FUSE can't be had: a remote file is copied whole into a memfd when it is opened. Same `open` as fusefs.py."""

from __future__ import annotations

import errno as e
import os
import stat as st
from typing import TYPE_CHECKING, Any

from sidestage.session.fusenode import Done, refusal

if TYPE_CHECKING:
    from sidestage.session.recent import Recent
    from sidestage.stream.links import Links
    from sidestage.stream.loop import Loop

LIMIT = 256 << 20  # bytes of one file: they are this machine's memory
CHUNK = 1 << 20


class MemFiles:
    def __init__(self, loop: Loop, links: Links | Recent) -> None:
        del loop
        self._links = links

    def open(self, path: str, flags: int, done: Done, mode: int = 0, *, writable: bool = False) -> None:
        """done({"fds": [memfd]}, errno). A directory can't be made of memory: ENOSYS; a file beyond LIMIT: EFBIG.

        What is written to a copy would be lost: EROFS.
        """
        del mode
        if writable and flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
            done({}, e.EROFS)
            return

        def opened(result: dict[str, Any], raw: bytes, errno: int) -> None:
            if errno:
                done({}, errno)
                return
            stat, handle = result["stat"], result["handle"]
            errno = refusal(stat[2], flags)
            if not errno and not st.S_ISREG(stat[2]):
                errno = e.ENOSYS
            if not errno and stat[7] > LIMIT:
                errno = e.EFBIG
            if errno:
                self._finish(handle, done, errno)
            else:
                self._copy(stat, handle, raw, done)

        self._links.call("open", {"path": path, "follow": not flags & os.O_NOFOLLOW}, opened)

    def _copy(self, stat: list[int], handle: int, first: bytes, done: Done) -> None:
        fd = os.memfd_create("sidestage", os.MFD_CLOEXEC)
        offset = 0

        def chunk(_result: dict[str, Any], raw: bytes, errno: int) -> None:
            nonlocal offset
            if not errno and offset + len(raw) > LIMIT:
                errno = e.EFBIG
            if errno:
                os.close(fd)
                self._finish(handle, done, errno)
                return
            _write(fd, raw, offset)
            offset += len(raw)
            if raw and handle:
                self._links.call("read", {"handle": handle, "offset": offset, "size": CHUNK}, chunk)
            else:
                self._finish(handle, done, 0, _read_only(fd, stat))

        chunk({}, first, 0)

    def _finish(self, handle: int, done: Done, errno: int, fd: int = -1) -> None:
        if handle:
            self._links.call("close", {"handle": handle}, lambda *_: None)
        done({} if errno else {"fds": [fd]}, errno)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _read_only(fd: int, stat: list[int]) -> int:
    os.fchmod(fd, stat[2] & 0o555 | 0o400)  # the last, or it could not be opened again
    os.utime(fd, ns=(stat[10], stat[11]))
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
