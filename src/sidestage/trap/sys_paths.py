"""access, readlink, statfs, chdir and reads of extended attributes: the other calls by path that don't change anything.

Calls that change something (mkdir, rename, unlink ...) aren't trapped in read mode: what a program writes is this machine's.
"""

from __future__ import annotations

import errno as e
import os
from typing import Any

from sidestage.trap import structs
from sidestage.trap.paths import AT_FDCWD, Paths, signed
from sidestage.trap.supervisor import Call, Supervisor


def install(sup: Supervisor) -> None:
    paths = Paths.of(sup)
    sup.on("access", lambda c: _access(paths, c, AT_FDCWD, c.args[0], c.args[1]))
    for name in ("faccessat", "faccessat2"):
        sup.on(name, lambda c: _access(paths, c, c.args[0], c.args[1], c.args[2]))
    sup.on("readlink", lambda c: _readlink(paths, c, AT_FDCWD, c.args[0], c.args[1], c.args[2]))
    sup.on("readlinkat", lambda c: _readlink(paths, c, c.args[0], c.args[1], c.args[2], c.args[3]))
    sup.on("statfs", lambda c: _statfs(paths, c))
    sup.on("name_to_handle_at", lambda c: _no_handle(paths, c))
    sup.on("chdir", lambda c: _chdir(paths, c))
    for name in ("getxattr", "lgetxattr", "listxattr", "llistxattr"):
        sup.on(name, lambda c: _xattr(paths, c))
    for name in ("getxattrat", "listxattrat", "file_getattr"):
        sup.on(name, lambda c: too_new(paths, c))


def _access(paths: Paths, call: Call, dirfd: int, address: int, mode: int) -> None:
    """To write, the program would open a file of this machine: so that is what it asks about."""
    mode &= 7
    place = paths.locate(call, dirfd, address, write=bool(mode & os.W_OK))
    if place is None:
        return
    if not place.remote:
        call.ret() if os.access(place.path, mode) else call.fail(e.EACCES if os.path.exists(place.path) else e.ENOENT)
        return

    def found(_result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        call.fail(errno) if errno else call.ret()

    paths.sup.broker.request("access", {"path": place.path, "mode": mode}, found)


def _readlink(paths: Paths, call: Call, dirfd: int, address: int, buffer: int, size: int) -> None:
    if signed(size) <= 0:
        call.cont()
        return

    def fill(target: str) -> None:
        data = os.fsencode(target)[: signed(size)]
        try:
            call.write(buffer, data)
        except OSError as error:
            call.fail(error.errno or e.EFAULT)
        else:
            call.ret(len(data))

    if (path := _own_descriptor(paths, call, address)) is not None:
        fill(path)
        return
    place = paths.locate(call, dirfd, address)
    if place is None:
        return

    def found(result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        call.fail(errno) if errno else fill(result["target"])

    if place.remote:
        paths.sup.broker.request("readlink", {"path": place.path}, found)
        return
    try:
        target = os.readlink(place.path)
    except OSError as error:
        call.fail(error.errno or e.EIO)
    else:
        fill(target)


def _own_descriptor(paths: Paths, call: Call, address: int) -> str | None:
    """/proc/self/fd/N of a remote file: musl's realpath(3) and Go's os.Getwd want to read a path that they know."""
    try:
        path = call.string(address)
    except OSError:
        return None
    return paths.node_path(call.tid, os.fsdecode(path)) if path.startswith(b"/proc/") else None


def _statfs(paths: Paths, call: Call) -> None:
    place = paths.locate(call, AT_FDCWD, call.args[0])
    if place is None:
        return
    if not place.remote:
        call.cont()
        return

    def found(result: dict[str, Any], errno: int, _fds: list[int]) -> None:
        if errno:
            call.fail(errno)
            return
        try:
            call.write(call.args[1], structs.statfs(result["statfs"]))
        except OSError as error:
            call.fail(error.errno or e.EFAULT)
        else:
            call.ret()

    paths.sup.broker.request("statfs", {"path": place.path}, found)


def _chdir(paths: Paths, call: Call) -> None:
    """In read mode the working directory is local (cwd.py is for write mode): nobody can change that of another process.

    fchdir(2) to a remote one works.
    """
    place = paths.locate(call, AT_FDCWD, call.args[0])
    if place is None:
        return
    if place.remote and not os.path.isdir(f"/proc/{call.tid}/root{place.path}"):
        paths.sup.say(f"chdir to {place.path}: the working directory can't be one of the target's; use absolute paths")
    call.cont()


def _no_handle(paths: Paths, call: Call) -> None:
    """EOPNOTSUPP: name_to_handle_at(2) has it for file systems without handles, and its users for network file systems."""
    place = paths.locate(call, call.args[0], call.args[1])
    if place is not None:
        call.fail(e.EOPNOTSUPP) if place.remote else call.cont()


def too_new(paths: Paths, call: Call) -> None:
    """Calls of Linux 6.13 and later, for which every program has an older one to fall back to."""
    if paths.locate(call, call.args[0], call.args[1], write=False):
        call.fail(e.ENOSYS)


def _xattr(paths: Paths, call: Call) -> None:
    """`ls -l` asks for labels and access lists, and takes it well when the file system has none."""
    place = paths.locate(call, AT_FDCWD, call.args[0])
    if place is not None:
        call.fail(e.EOPNOTSUPP) if place.remote else call.cont()
