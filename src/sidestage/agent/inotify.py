"""Watches of the target's files: the kernel's own inotify there, and each thing that happens told to the laptop.

One descriptor for all; the same file is the same watch, however often it is asked for (inotify(7)). What is only read isn't told:
a program that wants to know who reads a file of the target is rare, and each read of ours would be such an event.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
from typing import Any, Callable, Dict, List, Set, Tuple

from sidestage.agent.files import LISTING, Files, stat_of
from sidestage.stream.loop import Loop

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
MASK = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
)
MAX_WATCHES = 8192  # of one session; the system's own limit is another's too (max_user_watches)
MAX_NAMES = 16384  # of a directory that is watched; what happens to others is told as if they were new
BUFFER = 32 << 10  # bytes read at once; as JSON they are several times that, and one event of the link must hold them
MAX_BEHIND, PAUSE = 1 << 20, 0.05  # bytes of a link that doesn't keep up; seconds until it is looked at again
PAIR_MS = 2  # a name that went may come again at once, as the other half of a rename; a file whose link went may be gone
_EVENT = struct.Struct("=iIII")
_libc = ctypes.CDLL(None, use_errno=True)

Event = List[object]  # [watch, mask, cookie, name]


class Inotify:
    def __init__(self, loop: Loop, files: Files, tell: Callable[[List[Event]], None], behind: Callable[[], int]) -> None:
        """`behind`: bytes that the link has still to take. Raises OSError where no more can be had (max_user_instances)."""
        self._loop, self._files, self._tell, self._behind = loop, files, tell, behind
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watches: Set[int] = set()
        self._listen()

    def _listen(self) -> None:
        self._loop.watch(self._fd, select.EPOLLIN, lambda _: self._happened())

    def watch(self, path: str, follow: bool) -> Dict[str, Any]:
        """`{watch, stat, names}`: of a directory, the names in it and whether they are directories."""
        if len(self._watches) >= MAX_WATCHES:
            raise OSError(errno.ENOSPC, "too many watches")
        fd = self._files.walk(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        try:
            info = os.fstat(fd)
            if stat.S_ISLNK(info.st_mode):
                raise OSError(errno.EOPNOTSUPP, "a link can't be reached by its descriptor")
            link = f"/proc/self/fd/{fd}"
            watch = _checked(_libc.inotify_add_watch(self._fd, link.encode(), ctypes.c_uint32(MASK)))
            self._watches.add(watch)
            names = _names(link) if stat.S_ISDIR(info.st_mode) else []
            return {"watch": watch, "stat": stat_of(info), "names": names}
        finally:
            os.close(fd)

    def _happened(self) -> None:
        if self._behind() > MAX_BEHIND:  # the kernel keeps them meanwhile, and says so when they are too many
            self._loop.unwatch(self._fd)
            self._loop.later(PAUSE, self._listen)
            return
        events = self._read()
        if events and int(str(events[-1][1])) & (IN_MOVED_FROM if events[-1][3] else IN_ATTRIB):
            select.select([self._fd], [], [], PAIR_MS / 1000)
            events += self._read()
        if events:
            self._tell(events)

    def _read(self) -> List[Event]:
        try:
            data = os.read(self._fd, BUFFER)
        except BlockingIOError:
            return []
        events: List[Event] = []
        at = 0
        while at < len(data):
            watch, mask, cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size + size
            if mask & IN_IGNORED:
                self._watches.discard(watch)
            events.append([watch, mask, cookie, os.fsdecode(data[at - size : at].rstrip(b"\0"))])
        return events


def _names(directory: str) -> List[Tuple[str, bool]]:
    found: List[Tuple[str, bool]] = []
    left = LISTING
    with os.scandir(directory) as entries:
        for entry in entries:
            left -= 12 * len(entry.name) + 16  # as in Files.readdir: an answer is one frame
            if len(found) >= MAX_NAMES or left < 4096:
                break
            found.append((entry.name, entry.is_dir(follow_symlinks=False)))
    return found


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
