"""inotify_add_watch of the target's files: the program's descriptor watches a shadow that session keeps (session/shadows.py)."""

from __future__ import annotations

import ctypes
import errno as e
import os
from typing import Any

from sidestage.trap.paths import AT_FDCWD, Paths
from sidestage.trap.supervisor import Call, Supervisor

_IN_DONT_FOLLOW = 0x02000000
_libc = ctypes.CDLL(None, use_errno=True)


def install(sup: Supervisor) -> None:
    paths = Paths.of(sup)
    sup.on("inotify_add_watch", lambda c: _watch(paths, c))


def _watch(paths: Paths, call: Call) -> None:
    place = paths.locate(call, AT_FDCWD, call.args[1])
    if place is None:
        return
    if not place.remote:
        call.cont()  # a path of this machine by `mapping` is watched under its own name
        return
    mask = call.args[2] & 0xFFFFFFFF

    def watched(_result: dict[str, Any], errno: int, fds: list[int]) -> None:
        if errno:
            if errno == e.EOPNOTSUPP:
                paths.sup.say(f"{place.path} can't be watched from here: it is the target's")
            call.fail(errno)
            return
        try:
            call.ret(_add(call, fds[0], mask))
        except OSError as error:
            call.fail(error.errno or e.EIO)
        finally:
            os.close(fds[0])

    paths.sup.broker.request("watch", {"path": place.path, "follow": not mask & _IN_DONT_FOLLOW}, watched)


def _add(call: Call, shadow: int, mask: int) -> int:
    """The number of the watch; raises what inotify_add_watch(2) has to say."""
    descriptor = call.fd(call.args[0])
    try:
        watch: int = _libc.inotify_add_watch(
            descriptor, f"/proc/self/fd/{shadow}".encode(), ctypes.c_uint32(mask & ~_IN_DONT_FOLLOW)
        )
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch
    finally:
        os.close(descriptor)
