"""open, openat, openat2, creat: the program gets a descriptor of a file in our FUSE mount, or a copy in memory.

Session asks the agent, then trap opens the node that session names. The lookup of it is answered by session out of memory, so it
takes microseconds and never waits for the network.
"""

from __future__ import annotations

import errno as e
import os
import struct
from collections.abc import Callable
from typing import Any

from sidestage.trap.paths import AT_FDCWD, Paths, umask
from sidestage.trap.supervisor import Call, Supervisor

_OPEN_HOW = struct.Struct("=QQQ")
_RESOLVE_NO_MAGICLINKS = 2
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OPENED_FOR = os.O_ACCMODE | os.O_APPEND | os.O_SYNC  # and O_DSYNC, which is a part of it
_CREATES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
_NODE_FLAGS = os.O_NONBLOCK | os.O_DIRECTORY  # the others were dealt with, or (O_DIRECT, O_NOATIME) aren't for a remote file
_WITHOUT_FUSE = {e.ENOSYS: "a directory of the target can't be opened", e.EFBIG: "too large to be copied to memory"}
_FIRST = 128 << 10  # what an open brings along; beyond it, reading ahead pays


def install(sup: Supervisor) -> None:
    paths = Paths.of(sup)

    def opener(call: Call, dirfd: int, address: int, flags: int, mode: int) -> None:
        _open(paths, call, dirfd, address, flags & 0xFFFFFFFF, mode)

    sup.on("open", lambda c: opener(c, AT_FDCWD, c.args[0], c.args[1], c.args[2]))
    sup.on("openat", lambda c: opener(c, c.args[0], c.args[1], c.args[2], c.args[3]))
    sup.on("creat", lambda c: opener(c, AT_FDCWD, c.args[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, c.args[1]))
    sup.on("openat2", lambda c: _openat2(opener, c))


def _openat2(opener: Callable[[Call, int, int, int, int], None], call: Call) -> None:
    try:
        flags, mode, resolve = _OPEN_HOW.unpack(call.read(call.args[2], _OPEN_HOW.size))
    except OSError:
        call.cont()
        return
    if resolve & ~_RESOLVE_NO_MAGICLINKS:
        call.cont()  # asks for a guarantee about the walk, which only the kernel that walks can give
        return
    opener(call, call.args[0], call.args[1], flags, mode)


def _open(paths: Paths, call: Call, dirfd: int, address: int, flags: int, mode: int) -> None:
    place = paths.locate(call, dirfd, address, write=bool(flags & _WRITES) and not flags & os.O_PATH)
    if place is None:
        return
    if not place.remote:
        _open_here(call, place.path, flags, mode)
        return

    def opened(result: dict[str, Any], errno: int, fds: list[int]) -> None:
        if errno:
            if paths.root < 0 and errno in _WITHOUT_FUSE:
                paths.sup.say(f"{place.path}: {_WITHOUT_FUSE[errno]}, as FUSE can't be used here")
            call.fail(errno)
            return
        try:
            fd = fds[0] if fds else open_node(paths, result, flags, writable=place.writable)
        except OSError as error:
            call.fail(error.errno or e.EIO)
            return
        if not fds:
            paths.remember(result["node"], place.path)
        call.give(fd, cloexec=bool(flags & os.O_CLOEXEC))

    # A descriptor opened with O_PATH can't be given (ADDFD takes none): a readable one does all that it could, and more.
    if flags & os.O_PATH:
        flags &= os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    args: dict[str, Any] = {"path": place.path, "flags": flags}
    if place.writable:
        args |= {"writable": True, "mode": mode & 0o7777 & ~umask(call.tid) if flags & _CREATES else 0}
    paths.sup.broker.request("open", args, opened)


def open_node(paths: Paths, result: dict[str, Any], flags: int, *, writable: bool) -> int:
    wanted = flags & _NODE_FLAGS if flags & os.O_TMPFILE != os.O_TMPFILE else 0
    if writable:
        wanted |= flags & _OPENED_FOR
    fd = paths.open(result["node"], wanted)
    if not result["directory"] and result["stat"][7] > _FIRST:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # doubles the kernel's requests, which it caps at 128 KiB
    return fd


def _open_here(call: Call, path: str, flags: int, mode: int) -> None:
    """A mapped path of this machine. O_NONBLOCK: a pipe without a peer must not hold the supervisor."""
    try:
        fd = os.open(path, flags & ~os.O_PATH | os.O_NONBLOCK | os.O_NOCTTY, mode & 0o777)
    except OSError as error:
        call.fail(error.errno or e.EIO)
        return
    os.set_blocking(fd, not flags & os.O_NONBLOCK)
    call.give(fd, cloexec=bool(flags & os.O_CLOEXEC))
