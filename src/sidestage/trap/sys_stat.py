"""stat, lstat, newfstatat, statx of a path. fstat needs nothing: the program's descriptors are real files of the FUSE mount.

The device is that of the mount, so that a stat of the path and an fstat of the open file are seen to be the same file.
"""

from __future__ import annotations

import errno as e
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

from sidestage.trap import structs
from sidestage.trap.paths import AT_FDCWD, AT_SYMLINK_NOFOLLOW, Paths
from sidestage.trap.supervisor import Call, Supervisor

Encode = Callable[[Sequence[int]], bytes]


def install(sup: Supervisor) -> None:
    paths = Paths.of(sup)
    machine = platform.machine()

    def encode(values: Sequence[int]) -> bytes:
        return structs.stat(values, machine)

    def by_flags(call: Call, flags: int, buffer: int, how: Encode) -> None:
        _stat(paths, call, call.args[0], call.args[1], not flags & AT_SYMLINK_NOFOLLOW, buffer, how)

    sup.on("stat", lambda c: _stat(paths, c, AT_FDCWD, c.args[0], True, c.args[1], encode))
    sup.on("lstat", lambda c: _stat(paths, c, AT_FDCWD, c.args[0], False, c.args[1], encode))
    sup.on("newfstatat", lambda c: by_flags(c, c.args[3], c.args[2], encode))
    sup.on("statx", lambda c: by_flags(c, c.args[2], c.args[4], structs.statx))


def _stat(paths: Paths, call: Call, dirfd: int, address: int, follow: bool, buffer: int, encode: Encode) -> None:
    place = paths.locate(call, dirfd, address)
    if place is None:
        return

    def fill(values: Sequence[int]) -> None:
        try:
            call.write(buffer, encode(values))
        except OSError as error:
            call.fail(error.errno or e.EFAULT)
        else:
            call.ret()

    def found(result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        if errno:
            call.fail(errno)
            return
        device, *rest = result["stat"]
        fill((paths.device if paths.root >= 0 else device, *rest))

    if place.remote:
        paths.sup.broker.request("stat", {"path": place.path, "follow": follow}, found)
        return
    try:
        values = structs.of(os.stat(place.path, follow_symlinks=follow))
    except OSError as error:
        call.fail(error.errno or e.EIO)
    else:
        fill(values)
